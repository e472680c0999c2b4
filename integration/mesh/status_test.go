package mesh

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
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
	backend := start(t, echo(t, "status-back", `protocol = "http"`, `check "health" { http = "/" }`))
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
	_ = backend
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
	_ = http.MethodGet
}
