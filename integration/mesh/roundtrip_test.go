package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
)

// TestNothingIsLostOnTheWay: every golden service.json is registered as the
// `mesh proxy` does it, with a real agent and in the catalog of real servers, and read
// back field for field.
func TestNothingIsLostOnTheWay(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"*/service.json", "api/*/service.json"} {
		found, err := filepath.Glob(filepath.Join(shared.Binaries.Root, "src/render/testdata", pattern))
		if err != nil || len(found) < 2 {
			t.Fatalf("found %d golden droplets as %s: %v", len(found), pattern, err)
		}
		files = append(files, found...)
	}
	agent := startAgent(t)
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			agent.registers(t, dir)
			agent.catalogs(t, dir)
		})
	}
}

// agent is a Consul agent of the test's own, a server for itself.
type agent struct {
	base, data string
}

func startAgent(t *testing.T) *agent {
	t.Helper()
	ports := freePorts(t, 3)
	a := &agent{base: "http://127.0.0.1:" + ports[0], data: t.TempDir()}
	cmd := exec.Command(shared.Binaries.Consul(), "agent", "-dev", "-data-dir", a.data, "-disable-host-node-id",
		"-bind", "127.0.0.1", "-http-port", ports[0], "-server-port", ports[1], "-serf-lan-port", ports[2],
		"-serf-wan-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1",
		"-log-level", "error", "-hcl", "disable_update_check = true")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it holds nothing that is worth an orderly end
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", log.String())
		}
	})
	eventually(t, "the agent leads itself", func(ctx ctx) error {
		var leader string
		if err := a.call(ctx, http.MethodGet, "/v1/status/leader", nil, &leader); err != nil {
			return err
		}
		if leader == "" {
			return fmt.Errorf("no leader yet")
		}
		return nil
	})
	return a
}

func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ports = append(ports, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	}
	return ports
}

func (a *agent) call(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if text, err = io.ReadAll(response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// golden is a droplet that staging has rendered.
type golden struct {
	services []map[string]any // of service.json
	bodies   []registry.Request
}

func readGolden(t *testing.T, inst instance.Instance) (g golden) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(inst.Deps, droplet.ServiceFile))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services []map[string]any }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	bodies, err := registry.Requests(inst)
	if err != nil || len(bodies) != len(file.Services) {
		t.Fatalf("%d services become %d registrations: %v", len(file.Services), len(bodies), err)
	}
	return golden{file.Services, bodies}
}

// each calls a function with every service and sidecar, as Consul's answers name
// what it is, and with its checks, which they have elsewhere.
func (g golden) each(check func(id string, service map[string]any, checks []map[string]any)) {
	for _, service := range g.services {
		id := service["id"].(string)
		sidecar := service["connect"].(map[string]any)["sidecar_service"].(map[string]any)
		for id, one := range map[string]map[string]any{id: service, droplet.SidecarID(id): sidecar} {
			var checks []map[string]any
			for _, item := range list(one["checks"]) {
				definition := item.(map[string]any)
				definition["CheckID"], definition["ServiceID"] = definition["id"], id
				delete(definition, "id")
				checks = append(checks, definition)
			}
			if name, ok := one["name"]; ok {
				one["Service"] = name
			}
			for _, key := range []string{"name", "checks", "connect"} {
				delete(one, key)
			}
			check(id, one, checks)
		}
	}
}

// registers registers the services of a golden droplet, compares what the agent
// has of them, and takes them away.
func (a *agent) registers(t *testing.T, dir string) {
	g := readGolden(t, instance.Instance{Deps: dir})
	if len(g.bodies) == 0 {
		return // an app that has tasks alone
	}
	for _, body := range g.bodies {
		a.must(t, http.MethodPut, "/v1/agent/service/register?replace-existing-checks=true", body.Service, nil)
		for _, check := range body.Checks {
			a.must(t, http.MethodPut, "/v1/agent/check/register", check, nil)
		}
	}
	kept := a.checks(t)
	g.each(func(id string, service map[string]any, checks []map[string]any) {
		compare(t, id, service, a.service(t, id))
		for _, check := range checks {
			compareCheck(t, check, kept[check["CheckID"].(string)])
		}
	})
	for _, body := range g.bodies {
		a.must(t, http.MethodPut, "/v1/agent/service/deregister/"+url.PathEscape(body.Service["ID"].(string)), nil, nil)
	}
}

// catalogs writes the services of a golden droplet into the catalog, compares what
// it has of them, and takes their node out.
func (a *agent) catalogs(t *testing.T, dir string) {
	inst := instance.Instance{Deps: dir, App: "golden", GUID: filepath.Base(dir)}
	node := inst.NodeName()
	g := readGolden(t, inst)
	a.must(t, http.MethodPut, "/v1/catalog/register", map[string]string{"Node": node, "Address": "192.0.2.1"}, nil)
	for _, body := range g.bodies {
		for _, entry := range body.Entries {
			a.must(t, http.MethodPut, "/v1/catalog/register", entry, nil)
		}
	}
	var there struct{ Services []map[string]any }
	a.must(t, http.MethodGet, "/v1/catalog/node-services/"+node, nil, &there)
	var checked []map[string]any
	a.must(t, http.MethodGet, "/v1/health/node/"+node, nil, &checked)
	services, kept := byKey(there.Services, "ID"), byKey(checked, "CheckID")
	g.each(func(id string, service map[string]any, checks []map[string]any) {
		compare(t, id, service, services[id])
		for _, check := range checks {
			// The instance runs it. All that the catalog is told is what it is called.
			told := map[string]any{}
			for _, key := range []string{"CheckID", "ServiceID", "name", "notes"} {
				if value, ok := check[key]; ok {
					told[key] = value
				}
			}
			compareCheck(t, told, kept[check["CheckID"].(string)])
		}
	})
	a.must(t, http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": node}, nil)
}

func byKey(all []map[string]any, key string) map[string]map[string]any {
	by := map[string]map[string]any{}
	for _, one := range all {
		by[one[key].(string)] = one
	}
	return by
}

func compareCheck(t *testing.T, want, got map[string]any) {
	t.Helper()
	id := want["CheckID"].(string)
	if got == nil {
		t.Errorf("check %s is not there", id)
		return
	}
	compare(t, id, want, got)
}

func (a *agent) must(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	if err := a.call(deadline(t), method, path, body, answer); err != nil {
		t.Fatal(err)
	}
}

// checks are the agent's by their ids. Its API shows only what a check found
// out; what it does is in the agent's file.
func (a *agent) checks(t *testing.T) map[string]map[string]any {
	t.Helper()
	var shown map[string]map[string]any
	a.must(t, http.MethodGet, "/v1/agent/checks", nil, &shown)
	all := map[string]map[string]any{}
	for _, file := range a.files(t, "checks") {
		kept := file["ChkType"].(map[string]any)
		check := shown[kept["CheckID"].(string)]
		delete(check, "Status") // that of the last run
		maps.Copy(kept, check)
		all[kept["CheckID"].(string)] = kept
	}
	return all
}

// service is a service or a sidecar as the API shows it.
func (a *agent) service(t *testing.T, id string) map[string]any {
	t.Helper()
	var shown map[string]any
	a.must(t, http.MethodGet, "/v1/agent/service/"+url.PathEscape(id), nil, &shown)
	return shown
}

// files are what the agent keeps in its data directory of services or checks,
// to have them after a restart.
func (a *agent) files(t *testing.T, kind string) (all []map[string]any) {
	t.Helper()
	// They are named by a SHA-256 of their id; a folder is beside them.
	paths, err := filepath.Glob(filepath.Join(a.data, kind, strings.Repeat("[0-9a-f]", 64)))
	if err != nil || len(paths) == 0 {
		t.Fatalf("the agent keeps %d %s: %v", len(paths), kind, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]any
		if err := json.Unmarshal(text, &file); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, file)
	}
	return all
}

// compare reports every field of want that got has lost or changed.
func compare(t *testing.T, path string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		fields, _ := got.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(want)) {
			field, value := path+"."+key, fields[consulKey(fields, key)]
			if data[key] {
				if diff := cmp.Diff(want[key], value); diff != "" {
					t.Errorf("%s (-want +got):\n%s", field, diff)
				}
				continue
			}
			compare(t, field, want[key], value)
		}
	case []any:
		items := list(got)
		if len(items) != len(want) {
			t.Errorf("%s: %v, want %v", path, got, want)
			return
		}
		for i := range want {
			compare(t, fmt.Sprintf("%s[%d]", path, i), want[i], items[i])
		}
	default:
		if !same(want, got) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// data are the keys of objects that Consul keeps as they are.
var data = map[string]bool{"config": true, "Arguments": true, "meta": true, "header": true}

// consulKey is how Consul spells a key in its answers.
func consulKey(fields map[string]any, key string) string {
	plain := strings.ReplaceAll(key, "_", "")
	for spelling := range fields {
		if strings.EqualFold(spelling, plain) {
			return spelling
		}
	}
	return key
}

// same compares plain values. Consul leaves out zero values, and its files have
// durations in nanoseconds.
func same(want, got any) bool {
	switch got := got.(type) {
	case nil:
		return want == false || want == 0.0 || want == ""
	case float64:
		if text, ok := want.(string); ok {
			duration, err := time.ParseDuration(text)
			return err == nil && float64(duration) == got
		}
	case string:
		if want, ok := want.(string); ok && want != got {
			a, errA := time.ParseDuration(want)
			b, errB := time.ParseDuration(got)
			return errA == nil && errB == nil && a == b // 60s and 1m0s
		}
	}
	return want == got
}

func list(value any) []any {
	items, _ := value.([]any)
	return items
}
