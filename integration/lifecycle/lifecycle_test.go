package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the tests run this binary as the lifecycle program.
func TestMain(m *testing.M) {
	if os.Getenv("LIFECYCLE_TEST") != "" {
		main()
	}
	os.Exit(m.Run())
}

// home is like /home/vcap, with a staged app.
func home(t *testing.T, info string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"profile.d/0.sh":      `order="platform"; platform_saw="$0|$1|$2"; cd`,
		"profile.d/1.sh":      `cd "$HOME"`,
		"app/.profile.d/2.sh": `order="$order app $2"`,
		"app/.profile":        `export ORDER="$order profile" SAW="$platform_saw"`,
		"staging_info.yml":    info,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run runs the program under a name, as the platform's links to it do.
func run(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: exe, Args: args, Dir: dir, Env: append(os.Environ(),
		"LIFECYCLE_TEST=1", "INSTANCE_GUID=guid", "INSTANCE_INDEX=3", "PORT=8080", `VCAP_APPLICATION={"name": "x", "big": 12345678}`)}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

func TestLauncher(t *testing.T) {
	const show = `echo "$ORDER"; echo "$SAW"; echo "$PWD $HOME $DEPS_DIR $TMPDIR"`
	dir := home(t, `{"start_command": "echo from staging"}`)
	out, code := run(t, dir, "/tmp/lifecycle/launcher", "app", show, "")
	want := strings.Join([]string{
		"platform app " + show + " profile",
		"/tmp/lifecycle/launcher|" + dir + "/app|" + show,
		strings.Join([]string{dir + "/app", dir + "/app", dir + "/deps", dir + "/tmp"}, " "),
	}, "\n")
	if diff := cmp.Diff(want, out); diff != "" || code != 0 {
		t.Errorf("exit code %d: %s", code, diff)
	}
	for _, test := range []struct {
		name, info string
		args       []string
		out        string
		code       int
	}{
		{"command of staging", `{"start_command": "echo from staging; exit 3"}`, []string{"app", "", ""}, "from staging", 3},
		{"command with quotes", "{}", []string{"app", `printf '%s\n' "a  b" 'c'"d"`, ""}, "a  b\ncd", 0},
		{"prefix", `{"config": {"entrypoint_prefix": "printf %s,%s prefixed"}}`, []string{"app", "my command", ""}, "prefixed,my command", 0},
		{"too few arguments", "{}", []string{"app", "echo no"}, "launcher: received only 2 arguments\nUsage: launcher <app-directory> <start-command> <metadata>", 1},
		{"no command", "{}", []string{"app", "", ""}, "launcher: no start command specified or detected in droplet", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code := run(t, home(t, test.info), append([]string{"launcher"}, test.args...)...)
			if out != test.out || code != test.code {
				t.Errorf("got %q, %d, want %q, %d", out, code, test.out, test.code)
			}
		})
	}
}

// A script may put its own command in place of the one about to start.
func TestScriptsMayReplaceTheCommand(t *testing.T) {
	dir := home(t, "{}")
	script := `set -- "$1" 'echo wrapped; exec bash -c "$0"' "$2"`
	if err := os.WriteFile(filepath.Join(dir, "profile.d/3.sh"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := run(t, dir, "launcher", "app", "echo 'it  is'\nexit 4", "")
	if out != "wrapped\nit  is" || code != 4 {
		t.Errorf("got %q, %d", out, code)
	}
}

func TestShell(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: exe, Args: []string{"/tmp/lifecycle/shell"}, Dir: home(t, "{}"), Env: append(os.Environ(), "LIFECYCLE_TEST=1")}
	cmd.Stdin = strings.NewReader(`echo "$SAW"; exit 7`)
	out, err := cmd.CombinedOutput()
	if want := "/tmp/lifecycle/shell|" + cmd.Dir + "/app|bash\n"; string(out) != want || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("got %q %v, want %q", out, err, want)
	}
}

func TestAmendApplication(t *testing.T) {
	env := map[string]string{"INSTANCE_GUID": "guid", "INSTANCE_INDEX": "3", "PORT": "8080"}
	text, ok := amendApplication(`{"name": "x"}`, func(k string) string { return env[k] })
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil || !ok {
		t.Fatal(text, err)
	}
	want := map[string]any{"name": "x", "host": "0.0.0.0", "instance_id": "guid", "instance_index": 3.0, "port": 8080.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "null", "[]", "{"} {
		if _, ok := amendApplication(bad, os.Getenv); ok {
			t.Errorf("%q was amended", bad)
		}
	}
}

func TestUnknownName(t *testing.T) {
	if out, code := run(t, t.TempDir(), "something", "else"); code != 2 || !strings.Contains(out, "neither") {
		t.Errorf("got %q, %d", out, code)
	}
}

func TestMergeReplacesByType(t *testing.T) {
	got := merge([]process{{Type: "a", Command: "1"}, {Type: "b", Command: "2"}}, []process{{Type: "a", Command: "3"}, {Type: "c", Command: "4"}})
	if diff := cmp.Diff([]process{{Type: "a", Command: "3"}, {Type: "b", Command: "2"}, {Type: "c", Command: "4"}}, got); diff != "" {
		t.Error(diff)
	}
}
