package cell_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// helperEnv has the path of the program that the tests' apps run.
const helperEnv = "CELL_TEST_HELPER"

func TestMain(m *testing.M) {
	cell.MainWith(cell.MainOptions{Prepare: prepare, Run: m.Run, Listen: []string{"127.0.0.1:0"}})
}

func prepare() error {
	if _, err := cell.BuildLifecycle(os.TempDir()); err != nil {
		return err
	}
	if os.Getenv(helperEnv) != "" {
		return nil
	}
	for _, program := range []struct {
		env  string
		args []string
	}{
		{helperEnv, []string{"build", "./testdata/helper"}},
		{spreadEnv, []string{"test", "-c", "./testdata/spread"}},
	} {
		path := filepath.Join(os.TempDir(), filepath.Base(program.args[len(program.args)-1]))
		build := exec.Command("go", slices.Insert(program.args, len(program.args)-1, "-o", path)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("failed to build what the tests run: %w\n%s", err, out)
		}
		if err := os.Setenv(program.env, path); err != nil {
			return err
		}
	}
	return nil
}

// newCell is a cell for one test, with a short patience unless o says otherwise.
func newCell(t *testing.T, o cell.Options) *cell.Cell {
	t.Helper()
	if o.StopGrace == 0 {
		o.StopGrace = time.Second
	}
	if o.StartupInterval == 0 {
		o.StartupInterval = 50 * time.Millisecond
	}
	if testing.Verbose() {
		o.Log = testLog{t}
	}
	c, err := cell.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// timeout bounds one test's waiting.
func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type files map[string]string

// write makes a directory of files; scripts in bin/ are executable.
func (f files) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range f {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o755))
	}
	return dir
}

// plain finalizes and leaves the rest to the Procfile.
func plain(t testing.TB) cell.Buildpack {
	return buildpack(t, "plain", files{
		"bin/finalize": "#!/bin/bash\n",
		"bin/release":  "#!/bin/bash\necho 'default_process_types: {}'\n",
	})
}

func buildpack(t testing.TB, name string, f files) cell.Buildpack {
	return cell.Buildpack{Name: name, Dir: f.write(t)}
}

// app is an app whose web process is the helper, with other files as given.
func app(t testing.TB, name string, other files) cell.App {
	t.Helper()
	f := files{"Procfile": "web: ./helper\n"}
	maps.Copy(f, other)
	dir := f.write(t)
	program, err := os.ReadFile(os.Getenv(helperEnv))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "helper"), program, 0o755))
	return cell.App{Name: name, Dir: dir, Buildpacks: []cell.Buildpack{plain(t)}}
}

func push(t *testing.T, c *cell.Cell, a cell.App) *cell.RunningApp {
	t.Helper()
	r, err := c.Push(timeout(t), a)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get returns a body, or the error as text.
func get(client *http.Client, url string) string {
	short := *client
	short.Timeout = 3 * time.Second
	r, err := short.Get(url)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// ssh runs a command that has to succeed and returns what it prints.
func ssh(t *testing.T, i *cell.Instance, command string) string {
	t.Helper()
	out, status, err := i.SSH(timeout(t), command)
	if err != nil || status.Code != 0 {
		t.Fatalf("%s: %v %v\n%s", command, status, err, out)
	}
	return strings.TrimSpace(out)
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for ctx := timeout(t); !is(); {
		select {
		case <-ctx.Done():
			t.Fatal("never happened: " + what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
