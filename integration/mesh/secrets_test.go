package mesh

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// scan looks for the secrets of an app everywhere that they could have got to.
func (c *closedMesh) scan(t *testing.T, w closedMode) {
	name := "secrets-" + w.name
	app, binding := w.app(t, name, fmt.Sprintf("upstream %q {}", "exchanged-"+w.name))
	more := "envoy { log_level = \"trace\" }\n"
	if w.agents > 0 {
		more += "consul { log_level = \"trace\" }\n"
	}
	appendMesh(t, app, more)
	secrets := map[string]string{}
	for _, key := range []string{"agent_token", "service_token", "gossip_key"} {
		secrets[binding[key].(string)] = key
	}
	running := w.start(t, app)
	waitLog(t, running, "passing, in rotation")
	scanFiles(t, running.Droplet().Dir, secrets, nowhere)

	scanContainer(t, running, w, secrets)
	output, _, err := running.Instance(0).SSH(deadline(t), "/home/vcap/deps/0/bin/mesh status -json; curl -s 127.0.0.1:19000/config_dump; curl -s 127.0.0.1:8500/v1/agent/self")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(output, `: registered"`) || !strings.Contains(output, "bootstrap") {
		t.Errorf("status and dump are not there: %.2000s", output)
	}
	scanText(t, "status, Envoy's dump and the agent's API", []byte(output), secrets)

	if w.agents > 0 {
		wait(t, 5) // an agent that ends sooner is not started again
		signal(t, running.Instance(0), "bin/consul agent", syscall.SIGABRT)
		waitLog(t, running, "registered again (")
		scanContainer(t, running, w, secrets)
	}
	signal(t, running.Instance(0), "bin/envoy", syscall.SIGABRT)
	waitLog(t, running, "the Envoy of "+name+" ended")
}

// scanLogs looks at every line that any app of the closed mesh has logged,
// those that failed at a stage of their start included.
func (c *closedMesh) scanLogs(t *testing.T) {
	secrets := c.allSecrets()
	count := 0
	for _, app := range c.allApps() {
		for _, line := range c.Logs(app) {
			count++
			scanText(t, "the log of "+app, []byte(line.Text), secrets)
		}
	}
	t.Logf("%d lines, %d secrets", count, len(secrets))
	if count < 1000 || len(secrets) < 20 {
		t.Error("that is not all there is")
	}
}

func scanText(t *testing.T, where string, text []byte, secrets map[string]string) {
	t.Helper()
	for secret, what := range secrets {
		if at := bytes.Index(text, []byte(secret)); at >= 0 {
			t.Errorf("%s has the %s: …%s…", where, what, text[max(0, at-200):at])
		}
	}
}

// nowhere is a file that may have a secret: none.
func nowhere(string, fs.FileInfo) error { return fmt.Errorf("no file may") }

// scanFiles looks into every file below a folder. allowed says why one that has
// a secret may not.
func scanFiles(t *testing.T, top string, secrets map[string]string, allowed func(path string, info fs.FileInfo) error) (with int) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // it has ended, or is no file
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		name := strings.TrimPrefix(path, top)
		if strings.HasPrefix(entry.Name(), "core") && len(text) > 1<<20 {
			t.Errorf("%s looks like a core file", name)
		}
		for secret, what := range secrets {
			if !bytes.Contains(text, []byte(secret)) {
				continue
			}
			with++
			if err := allowed(path, info); err != nil {
				t.Errorf("%s (%s) has the %s: %v", name, info.Mode(), what, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return with
}

var noCore = regexp.MustCompile(`(?m)^Max core file size +[01] +[01] `)

// scanContainer looks into the files and the processes of an instance.
func scanContainer(t *testing.T, app *cell.RunningApp, w closedMode, secrets map[string]string) {
	t.Helper()
	processes, err := app.Instance(0).List()
	if err != nil {
		t.Fatal(err)
	}
	root := ""
	sidecars, bound := 0, 0
	for _, process := range processes {
		if process.HostPid == 0 {
			continue
		}
		dir := fmt.Sprintf("/proc/%d", process.HostPid)
		line, environ := readProc(dir, "cmdline"), readProc(dir, "environ")
		scanText(t, "an argument of "+strings.Join(process.Args, " "), line, secrets)
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.HasPrefix(variable, []byte("VCAP_SERVICES=")) {
				bound++
				continue
			}
			scanText(t, "the environment of "+strings.Join(process.Args, " "), variable, secrets)
		}
		program := strings.Join(process.Args, " ")
		if !strings.Contains(program, "/deps/0/bin/") || strings.Contains(program, "mesh app") || strings.HasPrefix(program, "bash") {
			continue
		}
		sidecars++
		root = dir + "/root"
		if limits := readProc(dir, "limits"); !noCore.Match(limits) {
			t.Errorf("%s may leave a core file", program)
		}
		if !strings.Contains(program, "bin/mesh") {
			scanText(t, "the environment of "+program, environ, secrets)
		}
	}
	if want := 2 + 2*w.agents; sidecars < want || bound == 0 {
		t.Errorf("found %d processes of the sidecars, and %d with a bound service", sidecars, bound)
	}
	with := 0
	for _, dir := range []string{"/home", "/tmp", "/dev/shm", "/var", "/run"} {
		with += scanFiles(t, root+dir, secrets, func(path string, info fs.FileInfo) error {
			private := filepath.Join(root, "/dev/shm")
			rest, inMemory := strings.CutPrefix(path, private+"/")
			if !inMemory {
				return fmt.Errorf("it is not in memory")
			}
			folder, _, _ := strings.Cut(rest, "/")
			if top, err := os.Stat(filepath.Join(private, folder)); err != nil || top.Mode().Perm() != 0o700 {
				return fmt.Errorf("the folder %s is not private (%v)", folder, err)
			}
			if info.Mode().Perm() != 0o600 {
				return fmt.Errorf("others may read it")
			}
			return nil
		})
	}
	// An agent has its own in files. A scan that finds none does not look in the
	// right place.
	if with < 3*w.agents || w.agents == 0 && with > 0 {
		t.Errorf("found secrets in %d files", with)
	}
}

func readProc(dir, name string) []byte {
	text, _ := os.ReadFile(filepath.Join(dir, name)) // it may have ended
	return text
}
