package crowd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// seat is what the platform gives an instance.
type seat struct {
	Service string // which is the app's name, too
	Index   int
	GUID    string
	Address netip.Addr
	Port    int // of its app
}

// process is the process type of all apps.
const process = "web"

// perNet is how many instances have an address in one network of 256.
const perNet = 250

// newSeat is that of the n-th instance, in a network of 65,536 addresses of loopback.
func newSeat(service string, n int, net byte) seat {
	address := netip.AddrFrom4([4]byte{127, net, byte(1 + n/perNet), byte(1 + n%perNet)})
	return seat{Service: service, Index: n, GUID: uuid.NewString()[:28], Address: address}
}

// depsIndex is the buildpack's folder in a droplet.
const depsIndex = "0"

// top is the droplet's top in the container.
func (s seat) top(dir string) string { return filepath.Join(dir, "instances", s.GUID) }

// instance is what the container program makes of the seat.
func (s seat) instance(dir string) (instance.Instance, error) {
	application, err := json.Marshal(map[string]any{
		"cf_api": "https://api.cf.test", "application_id": uuid.NewSHA1(uuid.NameSpaceOID, []byte(s.Service)).String(),
		"application_name": s.Service, "process_type": process, "space_name": "crowd", "organization_name": "test",
	})
	if err != nil {
		return instance.Instance{}, err
	}
	environment := map[string]string{
		"VCAP_APPLICATION": string(application), "CF_INSTANCE_GUID": s.GUID, "CF_INSTANCE_INDEX": strconv.Itoa(s.Index),
		"CF_INSTANCE_INTERNAL_IP": s.Address.String(), "PORT": strconv.Itoa(s.Port), "MEMORY_LIMIT": "256m",
	}
	program := filepath.Join(s.top(dir), "deps", depsIndex, droplet.BinDir, "mesh")
	return instance.New(program, func(name string) string { return environment[name] })
}

// furnish puts the droplet where the instance finds it. Those of a service share one.
func (s seat) furnish(dir string, servers []string, port int) error {
	staged := filepath.Join(dir, "droplets", s.Service)
	if _, err := os.Stat(staged); errors.Is(err, os.ErrNotExist) {
		if err := stage(staged, s.Service, servers, port); err != nil {
			return fmt.Errorf("failed to stage %s: %w", s.Service, err)
		}
	}
	if err := os.MkdirAll(s.top(dir), 0o755); err != nil {
		return err
	}
	return os.Symlink(staged, filepath.Join(s.top(dir), "deps"))
}

// stage makes the droplet of a service's app. Its Envoy is never run; its check is
// patient, because all instances share the machine with the servers.
func stage(deps, service string, servers []string, port int) error {
	text := fmt.Sprintf(`service %q {
  protocol = "http"
  check "health" {
    http     = "/health"
    interval = "60s"
    timeout  = "10s"
  }
}
consul {
  mode      = "agentless"
  addresses = ["%s"]
  ports {
    http = %d
    grpc = %d
  }
}
lifecycle { hold_app = false }
`, service, strings.Join(servers, `", "`), port, GRPCPort)
	mesh, _, err := meshfile.Parse(meshfile.Name, []byte(text), meshfile.Context{})
	if err != nil {
		return err
	}
	files := append(render.Files(mesh, depsIndex), render.File{Path: filepath.Join(droplet.BinDir, "envoy")})
	for _, file := range files {
		path := filepath.Join(deps, depsIndex, file.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.Content, 0o755); err != nil {
			return err
		}
	}
	return nil
}
