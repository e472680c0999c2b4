package meshfile

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestDefaultsOfTheSmallestFile(t *testing.T) {
	t.Parallel()
	mesh, err := Parse(Name, []byte(`service "web" {}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Mesh{
		Services: []*Service{{Name: "web", Process: "web", Protocol: "tcp"}},
		Consul:   &Consul{RetryJoin: []string{"consul-server.apps.internal"}, Datacenter: "dc1"},
		Envoy:    &Envoy{},
	}
	if diff := cmp.Diff(want, mesh, cmpopts.IgnoreTypes(hcl.Range{})); diff != "" {
		t.Errorf("mesh (-want +got):\n%s", diff)
	}
}

func TestEveryAttributeIsRead(t *testing.T) {
	t.Parallel()
	mesh, err := Parse(Name, []byte(`
service "frontend" {
  process  = "api"
  port     = 9000
  protocol = "http"
  tags     = ["v2", "blue"]
  meta     = { team = "rides" }
  check "health" {
    http     = "/health"
    interval = "5s"
    timeout  = "2s"
  }
  check "alive" { tcp = true }
  check "rpc" { grpc = "" }
  upstream "customer" { port = 8081 }
  upstream "billing" { datacenter = "dc2" }
}
consul {
  version    = "1.22.x"
  retry_join = ["a.example", "b.example"]
  datacenter = "cf"
}
envoy { version = "1.38.2" }
`))
	if err != nil {
		t.Fatal(err)
	}
	yes, health, all := true, "/health", ""
	want := &Mesh{
		Services: []*Service{{
			Name: "frontend", Process: "api", Port: 9000, Protocol: "http",
			Tags: []string{"v2", "blue"}, Meta: map[string]string{"team": "rides"},
			Checks: []*Check{
				{Name: "health", HTTP: &health, Interval: "5s", Timeout: "2s"},
				{Name: "alive", TCP: &yes, Interval: "1s", Timeout: "1s"},
				{Name: "rpc", GRPC: &all, Interval: "1s", Timeout: "1s"},
			},
			Upstreams: []*Upstream{
				{Name: "customer", Port: 8081},
				{Name: "billing", Port: mesh.Services[0].Upstreams[1].Port, Datacenter: "dc2"},
			},
		}},
		Consul: &Consul{Version: "1.22.x", RetryJoin: []string{"a.example", "b.example"}, Datacenter: "cf"},
		Envoy:  &Envoy{Version: "1.38.2"},
	}
	if diff := cmp.Diff(want, mesh, cmpopts.IgnoreTypes(hcl.Range{})); diff != "" {
		t.Errorf("mesh (-want +got):\n%s", diff)
	}
}

func TestAssignedPortsStayWhenAnUpstreamIsAddedAbove(t *testing.T) {
	t.Parallel()
	port := func(text string) int {
		t.Helper()
		mesh, err := Parse(Name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		upstreams := mesh.Services[0].Upstreams
		return upstreams[len(upstreams)-1].Port
	}
	alone := port("service \"a\" {\n upstream \"x\" {}\n}")
	below := port("service \"a\" {\n upstream \"new\" {}\n upstream \"x\" {}\n}")
	if alone != below {
		t.Errorf("upstream x moved from port %d to %d", alone, below)
	}
	if alone < UpstreamPorts || alone >= UpstreamPorts+upstreamPortsCount {
		t.Errorf("port %d is outside the range for upstreams", alone)
	}
}

// TestMistakes parses every testdata/bad/*.hcl and compares the whole message
// with the .txt beside it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/bad: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hcl"), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(Name, src)
			if err == nil {
				t.Fatal("parsed without an error")
			}
			golden := strings.TrimSuffix(file, ".hcl") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadSaysWhatToAdd(t *testing.T) {
	t.Parallel()
	_, err := Load(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), `service "my-app" {}`) {
		t.Errorf("error of an app without a mesh.hcl: %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, Name), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(dir); err == nil || !strings.Contains(err.Error(), "failed to read mesh.hcl") {
		t.Errorf("error of an app whose mesh.hcl is a folder: %v", err)
	}
}
