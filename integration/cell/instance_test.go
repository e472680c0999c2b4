package cell_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// environment asks a running process for its environment.
func environment(t *testing.T, i *cell.Instance, pid int) map[string]string {
	t.Helper()
	var text []byte
	// It is empty for a moment while the process becomes another program.
	until(t, "the process has an environment", func() bool {
		var err error
		text, err = i.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		must(t, err)
		return len(text) > 0
	})
	env := map[string]string{}
	for _, entry := range strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		env[key] = value
	}
	return env
}

func vcapApplication(t *testing.T, text string) (a map[string]any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &a))
	return a
}

// withSidecars supplies two sidecars and leaves scripts in every place.
func withSidecars(t *testing.T) cell.Buildpack {
	return buildpack(t, "sidecars", files{
		"bin/supply": `#!/bin/bash
mkdir -p $1/.profile.d $3/../profile.d
echo 'export TRACE="$TRACE app:$2"' > $1/.profile.d/b.sh
echo 'export TRACE="platform:$0:$PWD"' > $3/../profile.d/a.sh
echo 'export TRACE="$TRACE profile"' > $1/.profile
cat > $3/$4/launch.yml <<'YML'
processes:
- {type: one, command: "exec sleep 1000", limits: {memory: 64}, platforms: {cloudfoundry: {sidecar_for: [web]}}}
- {type: two, command: "echo side; echo err >&2; exec sleep 1000", platforms: {cloudfoundry: {sidecar_for: [web]}}}
- {type: other, command: "exit 1", platforms: {cloudfoundry: {sidecar_for: [worker]}}}
YML
`})
}

func sidecarApp(t *testing.T) cell.App {
	a := app(t, "app", nil)
	a.Buildpacks = append([]cell.Buildpack{withSidecars(t)}, a.Buildpacks...)
	a.Command = "exec ./helper"
	return a
}

func TestEnvironmentOfProcesses(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := sidecarApp(t)
	a.Env = map[string]string{"MINE": "with 'quotes' and\nlines"}
	a.VcapServices = `{"consul": []}`
	r := push(t, c, a)
	i := r.Instance(0)
	procs := map[string]int{}
	for _, p := range i.Processes() {
		procs[p.Name] = p.Pid
	}
	if got := slices.Sorted(maps.Keys(procs)); !slices.Equal(got, []string{"WEB", "one", "two"}) {
		t.Fatalf("got %v", got)
	}
	web := environment(t, i, procs["WEB"])
	for key, want := range map[string]string{
		"PORT": "8080", "HOME": "/home/vcap/app", "DEPS_DIR": "/home/vcap/deps", "TMPDIR": "/home/vcap/tmp", "USER": "vcap",
		"CF_INSTANCE_GUID": i.GUID(), "INSTANCE_GUID": i.GUID(), "CF_INSTANCE_INDEX": "0", "INSTANCE_INDEX": "0",
		"CF_INSTANCE_IP": "198.51.100.2", "CF_INSTANCE_INTERNAL_IP": i.Address(), "MEMORY_LIMIT": "960m",
		"VCAP_SERVICES": a.VcapServices, "MINE": a.Env["MINE"], "LANG": "en_US.UTF-8",
		"TRACE": "platform:/tmp/lifecycle/launcher:/home/vcap/app app:exec ./helper profile",
	} {
		if web[key] != want {
			t.Errorf("%s is %q, want %q", key, web[key], want)
		}
	}
	if len(i.GUID()) != 28 {
		t.Errorf("the GUID %s has not 28 characters", i.GUID())
	}
	va := vcapApplication(t, web["VCAP_APPLICATION"])
	for key, want := range map[string]any{
		"process_type": "web", "instance_id": i.GUID(), "instance_index": 0.0, "port": 8080.0, "host": "0.0.0.0",
		"application_name": "app", "space_name": "space", "organization_name": "org", "application_id": r.GUID(),
	} {
		if va[key] != want {
			t.Errorf("%s is %v, want %v", key, va[key], want)
		}
	}
	if got := va["limits"].(map[string]any)["mem"]; got != 960.0 {
		t.Errorf("the limit is %v", got)
	}
	if got := environment(t, i, procs["one"])["MEMORY_LIMIT"]; got != "64m" {
		t.Errorf("one has %s", got)
	}
	two := environment(t, i, procs["two"])
	if two["MEMORY_LIMIT"] != "1024m" || !strings.HasSuffix(two["TRACE"], "app:echo side; echo err >&2; exec sleep 1000 profile") {
		t.Errorf("two has %q", two)
	}
}

func TestLogLabels(t *testing.T) {
	c := newCell(t, cell.Options{})
	r := push(t, c, sidecarApp(t))
	for text, want := range map[string]cell.Line{
		"side":       {Label: "APP/PROC/WEB/SIDECAR/TWO/0"},
		"err":        {Label: "APP/PROC/WEB/SIDECAR/TWO/0", Err: true},
		"serving at": {Label: "APP/PROC/WEB/0"},
		"Creating":   {Label: "CELL/0"},
	} {
		got, err := r.WaitLog(timeout(t), text)
		if err != nil || got.Label != want.Label || got.Err != want.Err || got.App != "app" {
			t.Errorf("%s: got %v %v, want %v", text, got, err, want)
		}
	}
	if _, err := r.WaitLogMatch(timeout(t), regexp.MustCompile(`^serving at :\d+$`)); err != nil {
		t.Error(err)
	}
}

func TestEndOfOneProcessRestartsTheInstance(t *testing.T) {
	c := newCell(t, cell.Options{})
	r := push(t, c, sidecarApp(t))
	for _, name := range []string{"one", "web"} {
		before := r.Instance(0)
		must(t, before.Crash(name))
		<-before.Done()
		if got := before.State(); got != cell.Crashed || !strings.Contains(before.Reason(), strings.ToUpper(name)) {
			t.Errorf("%s: got %s %s", name, got, before.Reason())
		}
		until(t, "a new instance", func() bool { return r.Instance(0) != before })
		must(t, r.WaitRunning(timeout(t)))
		after := r.Instance(0)
		if after.GUID() == before.GUID() || after.Index() != 0 {
			t.Errorf("got %s/%d", after.GUID(), after.Index())
		}
	}
	if _, err := r.WaitLog(timeout(t), "crashed: APP/PROC/WEB/SIDECAR/ONE/0: signal: killed"); err != nil {
		t.Error(err)
	}
	if _, err := r.WaitLog(timeout(t), "got SIGTERM"); err != nil {
		t.Errorf("the other processes were not told: %v", err)
	}
}

func TestStop(t *testing.T) {
	const grace = 10 * time.Second
	c := newCell(t, cell.Options{StopGrace: grace})
	r := push(t, c, sidecarApp(t))
	i := r.Instance(0)
	took, err := i.Stop(timeout(t))
	if err != nil || took >= grace || len(i.Killed()) > 0 || i.State() != cell.Stopped {
		t.Errorf("took %s, killed %v, is %s: %v", took, i.Killed(), i.State(), err)
	}
	if r.Instance(0) != i {
		t.Error("a stopped instance was started again")
	}
}

// The real grace, because ten seconds is what the platform gives.
func TestStubbornProcessIsKilledAfterTenSeconds(t *testing.T) {
	if os.Getenv(nestedEnv) != "" {
		t.Skip("once is enough")
	}
	c := newCell(t, cell.Options{StopGrace: 10 * time.Second})
	a := sidecarApp(t)
	a.Command = "exec ./helper -stubborn"
	r := push(t, c, a)
	i := r.Instance(0)
	stopping := make(chan time.Duration)
	go func() {
		took, _ := i.Stop(timeout(t))
		stopping <- took
	}()
	until(t, "stopping", func() bool { return i.State() == cell.Stopping })
	// Its address still answers.
	if got := get(i.HTTPClient(), "http://127.0.0.1:8080/"); !strings.HasPrefix(got, "0 ") {
		t.Error(got)
	}
	took := <-stopping
	if took < 10*time.Second || took > 20*time.Second || !slices.Equal(i.Killed(), []string{"WEB"}) {
		t.Errorf("took %s, killed %v", took, i.Killed())
	}
}

func TestOnlyTopProcessesGetTheSignal(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	// The top process ends without telling its child.
	a.Command = "./helper & trap 'echo top; exit 0' TERM; while :; do sleep 0.01; done"
	r := push(t, c, a)
	_, err := r.Instance(0).Stop(timeout(t))
	must(t, err)
	for _, l := range r.Logs() {
		if strings.Contains(l.Text, "got SIGTERM") {
			t.Error("a child got SIGTERM")
		}
	}
	if _, err := r.WaitLog(timeout(t), "top"); err != nil {
		t.Error(err)
	}
}

func TestScale(t *testing.T) {
	c := newCell(t, cell.Options{})
	r := push(t, c, app(t, "app", nil))
	first := r.Instance(0)
	must(t, r.Scale(timeout(t), 3))
	must(t, r.WaitRunning(timeout(t)))
	if got := len(r.Instances()); got != 3 {
		t.Errorf("got %d instances", got)
	}
	must(t, r.Scale(timeout(t), 1))
	if got := r.Instances(); len(got) != 1 || got[0] != first {
		t.Errorf("got %v", got)
	}
}

func TestOtherProcessTypes(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"Procfile": "web: ./helper\nworker: echo $CF_INSTANCE_INDEX working; exec sleep 1000\n"})
	a.Scale = map[string]int{"worker": 2}
	r := push(t, c, a)
	if got := len(r.Instances()); got != 3 {
		t.Errorf("got %d instances", got)
	}
	l, err := r.WaitLog(timeout(t), "1 working")
	if err != nil || l.Label != "APP/PROC/WORKER/1" {
		t.Errorf("got %v %v", l, err)
	}
	i := r.InstanceOf("worker", 1)
	if got := vcapApplication(t, environment(t, i, i.Processes()[0].Pid)["VCAP_APPLICATION"])["process_type"]; got != "worker" {
		t.Errorf("got %v", got)
	}
}

// The daemon has the process' environment, as the launcher gets it.
func TestSSHIsABashWithTheDaemonsEnvironment(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := sidecarApp(t)
	a.Env = map[string]string{"MINE": "1", "PATH": "/usr/bin:/bin:/mine", "HOME": "/mine"}
	i := push(t, c, a).Instance(0)
	out, status, err := i.SSH(timeout(t), `echo "$TRACE$DEPS_DIR at $PWD, $HOME, $PATH, $MINE, $INSTANCE_INDEX"; id -un; exit 5`)
	if err != nil || status.Code != 5 || out != " at /home/vcap, /home/vcap, /bin:/usr/bin, 1, 0\nvcap\n" {
		t.Errorf("got %q %s %v", out, status, err)
	}
	va := vcapApplication(t, ssh(t, i, `echo "$VCAP_APPLICATION"`))
	if _, launched := va["instance_id"]; launched || va["process_type"] != "web" {
		t.Errorf("got %v, want what the launcher gets", va)
	}
}

// A shell has no scripts either; the platform's program for that has them.
func TestShell(t *testing.T) {
	c := newCell(t, cell.Options{})
	i := push(t, c, sidecarApp(t)).Instance(0)
	const show = "echo \"<$TRACE>\"; [ -t 0 ] && echo on a terminal; exit\n"
	for first, want := range map[string]string{
		"":                            "<>",
		"exec /tmp/lifecycle/shell\n": "<platform:/tmp/lifecycle/shell:/home/vcap/app app:bash profile>",
	} {
		for _, tty := range []bool{false, true} {
			var out bytes.Buffer
			p, err := i.Shell(timeout(t), strings.NewReader(first+show), &out, tty)
			must(t, err)
			_, err = p.Wait(timeout(t))
			must(t, err)
			if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "\non a terminal") != tty {
				t.Errorf("%sterminal %t: got %q", first, tty, got)
			}
		}
	}
}

func TestNothingIsLeftOfAnOrphan(t *testing.T) {
	c := newCell(t, cell.Options{})
	i := push(t, c, app(t, "app", nil)).Instance(0)
	ssh(t, i, "for n in 1 2 3; do (sleep 0.0$n &); done")
	until(t, "only init and the helper", func() bool {
		all, err := i.List()
		must(t, err)
		return len(all) == 2 // whom the launcher has become, and no orphan, alive or not
	})
	must(t, i.Signal("web", syscall.Signal(0)))
}
