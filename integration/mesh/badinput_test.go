package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStagingSaysWhatIsWrong: on the cell as on Cloud Foundry, one message,
// and no droplet. The mistakes themselves are tested in src/staging.
func TestStagingSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		says  []string
	}{
		"no mesh.hcl": {
			map[string]string{"Procfile": "web: ./echo\n"},
			[]string{"mesh buildpack: no mesh.hcl at the top of the app", "hint: add a file mesh.hcl"},
		},
		"an unknown block": {
			map[string]string{"mesh.hcl": "service \"a\" {\n}\nconsl {}\n", "Procfile": "web: ./echo\n"},
			[]string{"1 mistake in mesh.hcl", "on mesh.hcl line 3", `Did you mean "consul"?`},
		},
		"an agent configuration that Consul refuses": {
			map[string]string{"mesh.hcl": "service \"a\" {}\nconsul {\n config = { no_such_key = 1 }\n}\n", "Procfile": "web: ./echo\n"},
			[]string{"Consul refuses what config adds to its own", "no_such_key", "hint: config has the keys of Consul's agent configuration file"},
		},
		"arguments that Envoy refuses": {
			map[string]string{"mesh.hcl": "service \"a\" {}\nenvoy {\n extra_args = [\"--no-such-flag\"]\n}\n", "Procfile": "web: ./echo\n"},
			[]string{"Envoy refuses extra_args: PARSE ERROR: Argument: --no-such-flag", "Couldn't find match", "hint: extra_args has arguments of Envoy's command line"},
		},
		"a version that cannot be had here": {
			map[string]string{"mesh.hcl": "service \"a\" {}\nconsul {\n version = \"2.0.2\"\n}\n", "Procfile": "web: ./echo\n"},
			[]string{"failed to fetch", "releases.hashicorp.com", "hint: staging must reach"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			app := write(t, "bad", test.files)
			t.Cleanup(func() { _ = os.RemoveAll(shared.CacheDir("bad")) })
			_, err := shared.Stage(t.Context(), app)
			if err == nil {
				t.Fatal("staged without an error")
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q:\n%v", part, err)
				}
			}
		})
	}
}

// TestPortTaken: another process of the app has a port of the agent's, or of Envoy's.
func TestPortTaken(t *testing.T) { inBothModes(t, portTaken) }

func portTaken(t *testing.T, m mode) {
	port, whose := 8500, "the Consul agent's http port 8500"
	if m.agents == 0 {
		port, whose = 19000, "the admin port 19000 of Envoy"
	}
	app := m.echo(t, "taken-"+m.name)
	// Sourced by every process before it starts: the port is taken for sure.
	profile := fmt.Sprintf(`mkdir /tmp/taken 2>/dev/null && { PORT=%[1]d ./echo -bind 127.0.0.1 & }
until (: < /dev/tcp/127.0.0.1/%[1]d) 2>/dev/null; do :; done
`, port)
	if err := os.WriteFile(filepath.Join(app.Dir, ".profile"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	running := m.launch(t, app)
	waitLog(t, running, "mesh: failed: "+whose+" cannot be used: another process of the app listens there")
	waitLog(t, running, "mesh: hint:")
}

// TestEnvoyMissing: a droplet that lost a program.
func TestEnvoyMissing(t *testing.T) { inBothModes(t, envoyMissing) }

func envoyMissing(t *testing.T, m mode) {
	app := m.echo(t, "missing-"+m.name)
	droplet := stage(t, app)
	if err := os.Remove(filepath.Join(droplet.Dir, "deps", "0", "bin", "envoy")); err != nil {
		t.Fatal(err)
	}
	running := m.launchDroplet(t, app, droplet)
	waitLog(t, running, "mesh: failed: failed to find envoy in the droplet")
	waitLog(t, running, "mesh: hint: restage the app")
}

// TestNothingIsLeftOfAFailedStart: what was registered is taken back.
func TestNothingIsLeftOfAFailedStart(t *testing.T) { inBothModes(t, nothingIsLeftOfAFailedStart) }

func nothingIsLeftOfAFailedStart(t *testing.T, m mode) {
	app := m.echo(t, "fails")
	droplet := stage(t, app)
	// An Envoy that cannot start: everything before it has succeeded.
	if err := os.WriteFile(filepath.Join(droplet.Dir, "deps", "0", "bin", "envoy"), []byte("#!/bin/sh\necho no thanks; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	running := m.launchDroplet(t, app, droplet)
	waitLog(t, running, "mesh: fails: registered")
	waitLog(t, running, "last seen: envoy ended: exit status 3")
	if err := running.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the catalog is empty", shared.CatalogEmpty)
}
