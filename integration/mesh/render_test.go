package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestConsulAcceptsTheRenderedFiles: every golden agent.json and service.json
// passes the real consul validate.
func TestConsulAcceptsTheRenderedFiles(t *testing.T) {
	t.Parallel()
	var droplets []string
	for _, pattern := range []string{"*/agent.json", "api/*/agent.json"} {
		found, err := filepath.Glob(filepath.Join(shared.Binaries.Root, "src/render/testdata", pattern))
		if err != nil || len(found) < 2 {
			t.Fatalf("found %d golden droplets as %s: %v", len(found), pattern, err)
		}
		droplets = append(droplets, found...)
	}
	for _, agent := range droplets {
		dir := filepath.Dir(agent)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			// In the container the address comes from the overlay of mesh agent.
			overlay := filepath.Join(t.TempDir(), "overlay.json")
			if err := os.WriteFile(overlay, []byte(`{"bind_addr":"127.0.0.1"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			files := []string{"validate", agent, overlay}
			if filepath.Base(filepath.Dir(dir)) != "api" { // what those register, Consul does not take from disk
				files = append(files, filepath.Join(dir, "service.json"))
			}
			cmd := exec.Command(shared.Binaries.Consul(), files...)
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}

// TestRegistrationHasWhatTheFileSays: nothing of mesh.hcl is lost on its way
// into the catalog.
func TestRegistrationHasWhatTheFileSays(t *testing.T) { inBothModes(t, registrationHasWhatTheFileSays) }

func registrationHasWhatTheFileSays(t *testing.T, m mode) {
	app := m.echo(t, "full",
		`protocol = "http"`, `tags = ["v2"]`, `meta = { team = "rides" }`,
		`check "health" {`, `  http = "/health"`, `  interval = "2s"`, `}`,
		`check "alive" { tcp = true }`,
		`upstream "billing" {`, `  port = 9001`, `  datacenter = "cf"`, `}`)
	running := m.start(t, app)
	eventually(t, "the sidecar is in rotation", inRotation("full"))

	type upstream struct {
		DestinationName, Datacenter, LocalBindAddress string
		LocalBindPort                                 int
	}
	type registered struct {
		Service string
		Tags    []string
		Meta    map[string]string
		Port    int
		Proxy   struct {
			DestinationServiceName, LocalServiceAddress string
			LocalServicePort                            int
			Config                                      map[string]any
			Upstreams                                   []upstream
		}
	}
	var got struct{ Services map[string]registered }
	if err := shared.Consul(t.Context(), "GET", "/v1/catalog/node/"+nodeOf(running), nil, &got); err != nil {
		t.Fatal(err)
	}
	service, sidecar := got.Services["full"], got.Services["full-sidecar-proxy"]
	for _, pair := range []struct {
		what      string
		want, got any
	}{
		{"tags", []string{"v2"}, service.Tags},
		{"meta", map[string]string{"team": "rides"}, service.Meta},
		{"port", 8080, service.Port},
		{"sidecar port", 21000, sidecar.Port},
		{"sidecar of", "full", sidecar.Proxy.DestinationServiceName},
		{"local port", 8080, sidecar.Proxy.LocalServicePort},
		{"protocol", "http", sidecar.Proxy.Config["protocol"]},
		{"upstreams", []upstream{{"billing", "cf", "127.0.0.1", 9001}}, sidecar.Proxy.Upstreams},
	} {
		if diff := cmp.Diff(pair.want, pair.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", pair.what, diff)
		}
	}
	want := map[string]string{
		"full:health": "passing", "full:alive": "passing",
		"full-sidecar-proxy:ready": "passing", "full-sidecar-proxy:alias": "passing",
	}
	if m.gossip {
		want["serfHealth"] = "passing"
	}
	eventually(t, "all checks pass", func(ctx ctx) error {
		var checks []struct{ CheckID, Status string }
		if err := shared.Consul(ctx, "GET", "/v1/health/node/"+nodeOf(running), nil, &checks); err != nil {
			return err
		}
		status := map[string]string{}
		for _, check := range checks {
			status[check.CheckID] = check.Status
		}
		if diff := cmp.Diff(want, status); diff != "" {
			return fmt.Errorf("checks (-want +got):\n%s", diff)
		}
		return nil
	})
}

// TestStagingTwiceGivesTheSameBytes, of everything that is rendered.
func TestStagingTwiceGivesTheSameBytes(t *testing.T) { inBothModes(t, stagingTwiceGivesTheSameBytes) }

func stagingTwiceGivesTheSameBytes(t *testing.T, m mode) {
	app := m.echo(t, "twice", `upstream "a" {}`, `upstream "b" {}`)
	files := []string{"service.json", "mesh.json", "launch.yml", "profile.d/mesh.sh"}
	if m.agents > 0 {
		files = append(files, "agent.json")
	}
	first, second := stage(t, app), stage(t, app)
	for _, file := range files {
		var text [2]string
		for i, dir := range []string{first.Dir, second.Dir} {
			content, err := os.ReadFile(filepath.Join(dir, "deps/0", file))
			if err != nil {
				t.Fatal(err)
			}
			text[i] = string(content)
		}
		if diff := cmp.Diff(text[0], text[1]); diff != "" {
			t.Errorf("%s (-first +second):\n%s", file, diff)
		}
	}
}
