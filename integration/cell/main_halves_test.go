package cell_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// nestedEnv marks a run of these tests inside themselves.
const nestedEnv = "CELL_TEST_NESTED"

// nested is this program once more: both its halves, run by these tests.
func nested(t *testing.T, run string) *exec.Cmd {
	if os.Getenv(nestedEnv) != "" {
		t.Skip("is run by itself")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run="+run, "-test.timeout=2m")
	cmd.Env = append(os.Environ(), nestedEnv+"=1")
	return cmd
}

// TestWithoutRoot runs every other test as a user that is nobody.
func TestWithoutRoot(t *testing.T) {
	if os.Getuid() != 0 || userNamespace(t) {
		t.Skip("is not root")
	}
	cmd := nested(t, ".")
	const nobody = 65534
	home := t.TempDir()
	must(t, os.Chown(home, nobody, nobody))
	must(t, os.Chmod(filepath.Dir(home), 0o755))
	program := filepath.Join(home, "test")
	for from, to := range map[string]string{"/proc/self/exe": program, os.Getenv(helperEnv): "helper", os.Getenv(spreadEnv): "spread", os.Getenv("CELL_LIFECYCLE"): "lifecycle"} {
		b, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(home, filepath.Base(to)), b, 0o755))
	}
	cmd.Path, cmd.Dir = program, home
	cmd.Env = append(cmd.Env, "HOME="+home, "TMPDIR="+home, helperEnv+"="+home+"/helper", spreadEnv+"="+home+"/spread", "CELL_LIFECYCLE="+home+"/lifecycle")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("no tests to run")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRefusedNamespaces needs a namespace in which it may set limits, so it is
// run by TestWithoutRoot.
func TestRefusedNamespaces(t *testing.T) {
	if !userNamespace(t) {
		t.Skip("would change the machine")
	}
	const limit = "/proc/sys/user/max_net_namespaces"
	before, err := os.ReadFile(limit)
	must(t, err)
	must(t, os.WriteFile(limit, []byte("0"), 0o644))
	defer func() { must(t, os.WriteFile(limit, before, 0o644)) }()
	out, err := exec.Command("/proc/self/exe", "-test.run=none").CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 1 || !strings.HasPrefix(string(out), "a local cell needs root or unprivileged user namespaces") {
		t.Errorf("got %v %q", err, out)
	}
}

func userNamespace(t *testing.T) bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	must(t, err)
	return !strings.Contains(string(b), "4294967295")
}

// TestNothingIsLeftBehind ends a program that runs apps, in every way.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, sig := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			run := "TestPushedApp"
			if sig != 0 {
				run = "TestForever"
			}
			cmd := nested(t, run)
			tmp := t.TempDir()
			cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
			before := traces(t)
			out, err := cmd.StdoutPipe()
			must(t, err)
			cmd.Stderr = os.Stderr
			must(t, cmd.Start())
			var printed bytes.Buffer
			var programs, groups []string
			if sig != 0 {
				for !strings.Contains(printed.String(), "running forever") {
					b := make([]byte, 1000)
					n, err := out.Read(b)
					must(t, err)
					printed.Write(b[:n])
				}
				programs = names(t, tmp)
				groups = memoryGroups(t, programs)
				disks := attachedDisks(t, programs)
				if cell.MemoryLimits() == nil && (len(groups) != 1 || disks != 1) {
					t.Errorf("the control groups are %v, there are %d disks", groups, disks)
				}
				must(t, cmd.Process.Signal(sig))
			}
			_, _ = io.Copy(&printed, out)
			err = cmd.Wait()
			if (err == nil) != (sig == 0) {
				t.Errorf("ended with %v:\n%s", err, &printed)
			}
			until(t, "all traces are gone", func() bool { return slices.Equal(traces(t), before) })
			until(t, "no disk is left", func() bool { return attachedDisks(t, programs) == 0 })
			// Only a killed program cannot clean up what was built.
			if sig != syscall.SIGKILL && len(names(t, tmp)) > 0 {
				t.Errorf("files are left: %v", names(t, tmp))
			}
			for _, group := range groups {
				if sig == syscall.SIGKILL {
					until(t, "nothing runs in "+group, func() bool { return os.Remove(group) == nil })
				} else if _, err := os.Stat(group); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is left: %v", group, err)
				}
			}
		})
	}
}

// TestForever is run by TestNothingIsLeftBehind.
func TestForever(t *testing.T) {
	if os.Getenv(nestedEnv) == "" || userNamespace(t) {
		t.Skip("is not for itself")
	}
	a := app(t, "app", nil)
	a.EnforceMemory = cell.MemoryLimits() == nil
	push(t, newCell(t, cell.Options{}), a)
	_, _ = os.Stdout.WriteString("running forever\n")
	time.Sleep(time.Minute)
}

// memoryGroups are the control groups of programs by their names.
func memoryGroups(t *testing.T, programs []string) (all []string) {
	for _, program := range programs {
		for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory"} {
			groups, err := filepath.Glob(filepath.Join(hierarchy, "mesh-cell-"+program+"-*"))
			must(t, err)
			all = append(all, groups...)
		}
	}
	return all
}

// attachedDisks is how many disks the machine has for programs by their names.
func attachedDisks(t *testing.T, programs []string) (n int) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, file := range files {
		name, _ := os.ReadFile(file) // it may have gone
		if slices.ContainsFunc(programs, func(p string) bool { return strings.Contains(string(name), "/mesh-cell-"+p+"-") }) {
			n++
		}
	}
	return n
}

// traces are the processes there are, the namespaces they have, and mounts.
func traces(t *testing.T) (all []string) {
	pids, err := filepath.Glob("/proc/[0-9]*/ns/[nm][en]t")
	must(t, err)
	for _, p := range pids {
		if strings.HasPrefix(p, "/proc/self/") || strings.HasPrefix(p, "/proc/thread-self/") {
			continue
		}
		link, err := os.Readlink(p)
		if err == nil {
			all = append(all, p+" "+link)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return append(append(all, string(mounts)), names(t, os.TempDir())...)
}

func TestHostListener(t *testing.T) {
	l, err := cell.HostListener(0)
	must(t, err)
	if !strings.HasPrefix(l.Addr().String(), "127.0.0.1:") {
		t.Errorf("got %s", l.Addr())
	}
	// It is the machine's loopback and not the one here.
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it is reached from inside")
	}
	l.Close()
}

func TestRouter(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Instances, a.Routes = 2, []string{"app", "other"}
	r := push(t, c, a)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error)
	go func() { served <- c.ServeRouter(l) }()
	seen := map[string]bool{}
	for range 4 {
		seen[getHost(t, l, "other.localhost:8080")] = true
	}
	for index := range 2 {
		if want := "200 OK " + strings.TrimSpace(string(rune('0'+index))+" "+r.Instance(index).GUID()); !seen[want] {
			t.Errorf("instance %d has not answered: %v", index, seen)
		}
	}
	if got := getHost(t, l, "unknown"); !strings.HasPrefix(got, "404") {
		t.Errorf("got %q", got)
	}
	must(t, r.Stop(timeout(t)))
	if got := getHost(t, l, "app"); !strings.HasPrefix(got, "503") {
		t.Errorf("got %q", got)
	}
	must(t, c.Close())
	must(t, <-served)
}

// getHost returns the status and the body.
func getHost(t *testing.T, l net.Listener, host string) string {
	request, err := http.NewRequestWithContext(timeout(t), "GET", "http://"+l.Addr().String(), nil)
	must(t, err)
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response.Status + " " + strings.TrimSpace(string(body))
}
