package mesh

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// TestAppsEnvironment: what the app's environment says to Go's runtime, to the linker
// and to bash reaches the app, and none of this buildpack's processes.
func TestAppsEnvironment(t *testing.T) { inBothModes(t, appsEnvironment) }

func appsEnvironment(t *testing.T, m mode) {
	t.Parallel()
	app := m.echo(t, "outspoken-"+m.name)
	apps := map[string]string{
		"GODEBUG": "http2debug=2,http2server=0", "LD_LIBRARY_PATH": "/nowhere", "GOMEMLIMIT": "1KiB",
		"ODD": "two\nlines, it's \"odd\" $HOME", "SHELLOPTS": "braceexpand:errexit:hashall:nounset",
	}
	app.Env = apps
	running := m.start(t, app)
	for part, isApps := range map[string]bool{"./echo": true, "mesh proxy": false, "mesh app": false, "bin/envoy": false} {
		environment := environmentOf(t, running.Instance(0), part)
		for name, value := range apps {
			if got, has := environment[name]; has != isApps || isApps && name != "SHELLOPTS" && got != value {
				t.Errorf("%s has %s=%q: %t", part, name, got, has)
			}
		}
		if _, has := environment["MESH_APP_ENVIRONMENT"]; has && isApps {
			t.Errorf("%s has this buildpack's own", part)
		}
	}
	for _, line := range running.Logs() {
		if strings.Contains(line.Text, "http2: ") {
			t.Fatalf("a sidecar prints %q", line.Text)
		}
	}
}

// environmentOf is that of the process whose command line has a part.
func environmentOf(t *testing.T, instance *cell.Instance, part string) map[string]string {
	t.Helper()
	processes, err := instance.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(processes, func(p container.ProcessInfo) bool {
		line := strings.Join(p.Args, " ")
		return strings.Contains(line, part) && (part == "mesh app" || !strings.Contains(line, "mesh app")) && !strings.HasPrefix(line, "bash")
	})
	if i < 0 {
		t.Fatalf("there is no process with %q", part)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", processes[i].HostPid))
	if err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(text), "\x00"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		environment[name] = value
	}
	return environment
}
