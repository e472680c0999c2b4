package mesh

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/src/runtime"
)

// statusOf runs `mesh status` as `cf ssh -c` does, without any environment.
func statusOf(t *testing.T, app *cell.RunningApp) (s runtime.Status, text string, code int) {
	t.Helper()
	const program = "env -i /home/vcap/deps/*/bin/mesh status"
	output, exit, err := app.Instance(0).SSH(deadline(t), program+" -json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(output), &s); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	text, exit, err = app.Instance(0).SSH(deadline(t), program)
	if err != nil {
		t.Fatal(err)
	}
	return s, text, exit.Code
}

// TestStatus: a healthy instance says so, and each thing that goes wrong is
// named with its likely cause.
func TestStatus(t *testing.T) {
	start(t, echo(t, "status-back", `protocol = "http"`, `check "health" { http = "/" }`))
	front := echo(t, "status-front", `upstream "status-back" { port = 9001 }`)
	caller := start(t, front, "status-back")
	eventually(t, "the instance is healthy", func(ctx) error {
		s, text, code := statusOf(t, caller)
		t.Log(text)
		if code != 0 || !s.Healthy() {
			return fmt.Errorf("exit status %d:\n%s", code, text)
		}
		return nil
	})
	s, text, _ := statusOf(t, caller)
	for _, want := range []string{"verdict", "healthy", "stage", "agent up", "passing, in rotation", "1 of 1 instances passing", "certificate", "listener"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if until := s.Services[0].Envoy.CertificateUntil; until == nil {
		t.Error("it does not say until when the certificate is")
	}
	problem := func(want string) {
		t.Helper()
		eventually(t, "the status names the cause: "+want, func(ctx) error {
			s, text, code := statusOf(t, caller)
			for _, problem := range s.Problems {
				if strings.Contains(problem, want) && code == 1 {
					t.Log(problem)
					return nil
				}
			}
			return fmt.Errorf("exit status %d:\n%s", code, text)
		})
	}
	if err := shared.Intention(t.Context(), "status-front", "status-back", "deny"); err != nil {
		t.Fatal(err)
	}
	problem("intentions deny calls to status-back")
	if err := shared.RemoveIntentions(t.Context(), "status-back"); err != nil {
		t.Fatal(err)
	}
	upstream := cell.Policy{Source: "status-front", Destination: "status-back", Protocol: "tcp", Start: 21000}
	if err := shared.Disallow(upstream); err != nil {
		t.Fatal(err)
	}
	problem("is there a network policy from this app to it for 21000 tcp?")
}

// TestFailedStarts: a mesh that does not get ready in time ends the instance
// and names the cause, and the app never runs.
func TestFailedStarts(t *testing.T) {
	const hurry = "lifecycle { start_timeout = \"5s\" }\n"
	taken := echo(t, "taken", `upstream "taken-by" { port = 9001 }`)
	profile := "(PORT=9001 ./echo -bind 127.0.0.1 > /dev/null 2>&1 &)\n"
	if err := os.WriteFile(filepath.Join(taken.Dir, ".profile"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	elsewhere := write(t, "elsewhere", map[string]string{
		"mesh.hcl": hurry + `service "elsewhere" {}` + "\nconsul { datacenter = \"dc9\" }\n",
	})
	nowhere := write(t, "nowhere", map[string]string{
		"mesh.hcl": hurry + `service "nowhere" {}` + "\nconsul {\n  datacenter = \"cf\"\n  retry_join = [\"nowhere.apps.internal\"]\n}\n",
	})
	alone := echo(t, "alone")
	for _, test := range []struct {
		app  cell.App
		want string
	}{
		{taken, "hint: another process of the app listens on a port of mesh.hcl"},
		{elsewhere, "the servers are of another datacenter"},
		{nowhere, "nowhere.apps.internal, the address of the servers in mesh.hcl (retry_join), does not resolve"},
		{alone, "is there a network policy from this app to the servers for 8301 tcp and udp?"},
	} {
		t.Run(test.app.Name, func(t *testing.T) {
			path := filepath.Join(test.app.Dir, "mesh.hcl")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), hurry) {
				if err := os.WriteFile(path, append(text, hurry...), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(test.app.Dir, "Procfile"), []byte("web: echo the-app-ran; ./echo\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			running := launch(t, test.app)
			if test.app.Name == "alone" {
				for _, policy := range foundation.MeshPolicies(map[string][]string{"alone": nil}) {
					if err := shared.Disallow(policy); err != nil {
						t.Fatal(err)
					}
				}
			}
			waitLog(t, running, "mesh: failed: not ")
			waitLog(t, running, test.want)
			for _, line := range running.Logs() {
				if strings.Contains(line.Text, "the-app-ran") {
					t.Error("the app was started without its mesh")
				}
			}
		})
	}
}
