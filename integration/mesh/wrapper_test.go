package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// commandLines lists what runs in a container.
func commandLines(t *testing.T, instance *cell.Instance) []string {
	t.Helper()
	processes, err := instance.List()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, process := range processes {
		if process.State == "Z" {
			t.Errorf("zombie with pid %d", process.Pid)
		}
		lines = append(lines, strings.Join(process.Args, " "))
	}
	return lines
}

func count(lines []string, part string) int {
	n := 0
	for _, line := range lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// sidecarBuildpack is somebody else's buildpack, that adds a sidecar and leaves
// set -eu on.
func sidecarBuildpack(t *testing.T, command string) cell.Buildpack {
	t.Helper()
	return script(t, "theirs", "supply", `
cat > "$3/$4/launch.yml" <<'END'
processes:
- type: theirs
  command: `+command+`
  platforms: {cloudfoundry: {sidecar_for: [web]}}
END
mkdir -p "$3/$4/profile.d"
echo 'set -eu' > "$3/$4/profile.d/strict.sh"
`)
}

// script is a buildpack of one shell script.
func script(t *testing.T, name, step, text string) cell.Buildpack {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{step: text, "release": "echo '--- {}'\n"} {
		if err := os.WriteFile(filepath.Join(dir, "bin", file), []byte("#!/bin/bash\nset -e\n"+content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return cell.Buildpack{Name: name, Dir: dir}
}

// TestOnlyTheAppIsWrapped: not the sidecars of this buildpack, of another one
// (which leaves set -eu on), or of the app's own manifest.
func TestOnlyTheAppIsWrapped(t *testing.T) { inBothModes(t, onlyTheAppIsWrapped) }

func onlyTheAppIsWrapped(t *testing.T, m mode) {
	app := m.echo(t, "wrapped")
	app.Buildpacks = []cell.Buildpack{sidecarBuildpack(t, "sleep 1001"), shared.Mesh, shared.Last}
	app.Sidecars = []cell.Sidecar{{Name: "own", Command: "sleep 1002", ProcessTypes: []string{"web"}}}
	running := m.start(t, app)
	lines := commandLines(t, running.Instance(0))
	for part, want := range map[string]int{
		"mesh app -- bash -c ./echo": 1,
		"mesh app":                   1,
		"sleep 1001":                 1,
		"sleep 1002":                 1,
		"consul agent":               m.agents,
		"bin/envoy":                  1,
		"mesh proxy":                 1,
	} {
		if got := count(lines, part); got != want {
			t.Errorf("%d processes with %q, want %d:\n%s", got, part, want, strings.Join(lines, "\n"))
		}
	}
	if slices.ContainsFunc(running.Logs(), func(l cell.Line) bool { return strings.Contains(l.Text, "did not wait for its mesh") }) {
		t.Error("the proxy does not know that the app was held")
	}
}

// TestStartCommands: whatever the command is, it starts as it would without
// the buildpack.
func TestStartCommands(t *testing.T) { inBothModes(t, startCommands) }

func startCommands(t *testing.T, m mode) {
	for name, test := range map[string]struct{ command, procfile string }{
		"quotes, variables and a background child": {
			command: `sleep 1003 & X='a  b' && test "$X" = "a  b" && exec ./echo`, procfile: "web: false\n",
		},
		"a Procfile's":                 {procfile: "web: export Y=1; ./echo\n"},
		"cf push -c without any other": {command: "./echo"},
	} {
		t.Run(name, func(t *testing.T) {
			app := m.echo(t, "commands")
			app.Command = test.command
			if err := os.WriteFile(filepath.Join(app.Dir, "Procfile"), []byte(test.procfile), 0o644); err != nil {
				t.Fatal(err)
			}
			// It leaves a process behind, which would be a zombie of who comes next.
			if err := os.WriteFile(filepath.Join(app.Dir, ".profile"), []byte("sleep 0.1 &\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			running := m.start(t, app)
			if got := count(commandLines(t, running.Instance(0)), "mesh app"); got != 1 {
				t.Errorf("%d wrappers", got)
			}
			answer, err := shared.Route(deadline(t), "commands", "/")
			if err != nil || !strings.Contains(answer, `"app":"commands"`) {
				t.Errorf("%s %v", answer, err)
			}
		})
	}
}

// TestExitStatus: the platform sees the app's own.
func TestExitStatus(t *testing.T) { inBothModes(t, exitStatus) }

func exitStatus(t *testing.T, m mode) {
	app := m.echo(t, "exits-"+m.name)
	app.Command = `./echo & until (: < /dev/tcp/127.0.0.1/8080) 2>/dev/null; do :; done; exit 42`
	running := m.launch(t, app)
	waitLog(t, running, "Exit status 42")
}

// TestShells: a person's is never wrapped or held, and finds the upstreams.
func TestShells(t *testing.T) { inBothModes(t, shells) }

func shells(t *testing.T, m mode) {
	app := m.echo(t, "shells", `upstream "other-app" { port = 9001 }`)
	// Nothing declares this command, so any other could be the app's too.
	app.Command = "./echo"
	if err := os.Remove(filepath.Join(app.Dir, "Procfile")); err != nil {
		t.Fatal(err)
	}
	running := m.start(t, app)
	instance := running.Instance(0)

	output, status, err := instance.SSH(deadline(t), "echo $((6*7))")
	if err != nil || status.Code != 0 || output != "42\n" {
		t.Errorf("cf ssh -c: %q %v %v", output, status, err)
	}
	// It hands the daemon's environment on; the daemon is known by its name alone.
	launched := `/tmp/lifecycle/launcher /home/vcap/app "cat /proc/\$PPID/comm" ""`
	output, status, err = instance.SSH(deadline(t), `cp /bin/bash /tmp/diego-sshd && /tmp/diego-sshd -c '`+launched+`; true'`)
	if err != nil || status.Code != 0 || strings.Contains(output, "mesh") || !strings.Contains(output, "diego-sshd") {
		t.Errorf("cf ssh -c with the launcher: %q %v %v", output, status, err)
	}
	// Whoever looks why a proxy hangs needs a shell.
	signal(t, instance, "mesh proxy", syscall.SIGSTOP)
	defer signal(t, instance, "mesh proxy", syscall.SIGCONT)
	for name, tty := range map[string]bool{"with a terminal": true, "without": false} {
		var out bytes.Buffer
		shell, err := instance.Shell(t.Context(), strings.NewReader("exec /tmp/lifecycle/shell\necho at=$MESH_UPSTREAM_OTHER_APP_ADDR parent=$(cat /proc/$PPID/comm); exit 5\n"), &out, tty)
		if err != nil {
			t.Fatal(err)
		}
		status, err = shell.Wait(deadline(t))
		if err != nil || status.Code != 5 || !strings.Contains(out.String(), "at=127.0.0.1:9001") || strings.Contains(out.String(), "parent=mesh") {
			t.Errorf("cf ssh %s: %q %v %v", name, out.String(), status, err)
		}
	}
}

// TestTask: it has no sidecars, so it runs at once, and is told why once.
func TestTask(t *testing.T) { inBothModes(t, task) }

func task(t *testing.T, m mode) {
	app := m.echo(t, "tasks-"+m.name)
	droplet := stage(t, app)
	status, err := shared.Task(deadline(t), app, droplet, "echo from-the-task; exit 3")
	if err != nil || status.Code != 3 {
		t.Errorf("%v %v", status, err)
	}
	said := 0
	for _, line := range shared.Logs(app.Name) {
		if strings.Contains(line.Text, "a task gets no sidecars") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("it was told %d times", said)
	}
}

// TestProcessWithoutService is left alone: no sidecar, no wrapper.
func TestProcessWithoutService(t *testing.T) { inBothModes(t, processWithoutService) }

func processWithoutService(t *testing.T, m mode) {
	app := m.echo(t, "processes-"+m.name)
	if err := os.WriteFile(filepath.Join(app.Dir, "Procfile"), []byte("web: ./echo\nworker: echo working; exec sleep 1004\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	app.Scale = map[string]int{"worker": 1}
	running := m.start(t, app)
	waitLog(t, running, "working")
	lines := commandLines(t, running.InstanceOf("worker", 0))
	if count(lines, "mesh") > 0 || count(lines, "consul") > 0 || count(lines, "sleep 1004") != 1 {
		t.Errorf("the worker's container runs:\n%s", strings.Join(lines, "\n"))
	}
}

// TestLastBuildpack: this buildpack finalizes a droplet too, and says that it should
// not have to.
func TestLastBuildpack(t *testing.T) { inBothModes(t, lastBuildpack) }

func lastBuildpack(t *testing.T, m mode) {
	app := m.echo(t, "last")
	app.Buildpacks = []cell.Buildpack{script(t, "ruby", "supply", `
echo '{name: ruby, config: {}}' > "$3/$4/config.yml"
`), shared.Mesh}
	running := m.start(t, app)
	eventually(t, "the sidecar is in rotation", inRotation("last"))
	if got := count(commandLines(t, running.Instance(0)), "mesh app"); got != 1 {
		t.Errorf("%d wrappers", got)
	}
	if log := running.Droplet().Log; !strings.Contains(log, "name mesh_buildpack before ruby_buildpack") {
		t.Errorf("the log does not say in which order buildpacks belong:\n%s", log)
	}
}

// TestTooLittleMemory: the platform refuses a push whose sidecars leave the app
// nothing, and the staging log alone has the reason.
func TestTooLittleMemory(t *testing.T) { inBothModes(t, tooLittleMemory) }

func tooLittleMemory(t *testing.T, m mode) {
	app := m.echo(t, "little-"+m.name)
	app.Memory = 64 * (m.agents + 1)
	droplet := stage(t, app)
	if _, err := shared.Start(t.Context(), app, droplet); err == nil || !strings.Contains(err.Error(), "CF-UnknownError") {
		t.Errorf("the platform says %v", err)
	}
	if said := fmt.Sprintf("push with more than %d MB", app.Memory); !strings.Contains(droplet.Log, said) {
		t.Errorf("the log does not say %q:\n%s", said, droplet.Log)
	}
}

// TestEntrypointPrefix: a launcher that does not take a shell's arguments is
// left alone, and the log says that the app was not held. The last buildpack
// here copies no profile scripts, so ours comes from the app's .profile.d.
func TestEntrypointPrefix(t *testing.T) { inBothModes(t, entrypointPrefix) }

func entrypointPrefix(t *testing.T, m mode) {
	app := m.echo(t, "prefixed-"+m.name)
	app.Buildpacks = []cell.Buildpack{shared.Mesh, script(t, "prefixing", "finalize", `
echo '{name: prefixing, config: {entrypoint_prefix: bash -c}}' > "$3/$4/config.yml"
`)}
	running := m.start(t, app)
	waitLog(t, running, "mesh: the app did not wait for its mesh")
	eventually(t, "the sidecar is in rotation", inRotation(app.Name))
	if lines := commandLines(t, running.Instance(0)); count(lines, "mesh app") != 0 {
		t.Errorf("it was wrapped:\n%s", strings.Join(lines, "\n"))
	}
}

// TestDetectDeclines: a system buildpack never grabs an app that did not ask.
func TestDetectDeclines(t *testing.T) {
	t.Parallel()
	err := exec.Command(filepath.Join(shared.Mesh.Dir, "bin", "detect"), t.TempDir()).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("detect gives %v", err)
	}
}

func inRotation(service string) func(context.Context) error { return inRotationOf(shared, service) }

func inRotationOf(f *foundation.Foundation, service string) func(context.Context) error {
	return func(ctx context.Context) error {
		healthy, err := f.Healthy(ctx, service)
		if err != nil {
			return err
		}
		if len(healthy) == 0 {
			return fmt.Errorf("%s has no healthy instance", service)
		}
		return nil
	}
}

// TestNotHeld: the wrapper can be turned off in mesh.hcl.
func TestNotHeld(t *testing.T) { inBothModes(t, notHeld) }

func notHeld(t *testing.T, m mode) {
	app := m.echo(t, "free")
	mesh := m.meshFile("free") + "lifecycle { hold_app = false }\n"
	if err := os.WriteFile(filepath.Join(app.Dir, "mesh.hcl"), []byte(mesh), 0o644); err != nil {
		t.Fatal(err)
	}
	running := m.start(t, app)
	eventually(t, "the sidecar is in rotation", inRotation("free"))
	if lines := commandLines(t, running.Instance(0)); count(lines, "mesh app") != 0 {
		t.Errorf("it was wrapped:\n%s", strings.Join(lines, "\n"))
	}
}
