package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// A container needs no cell, but the right to make namespaces, which cell.Main
// provides for everybody.
func TestMain(m *testing.M) {
	if os.Getenv(tellTime) != "" {
		os.Exit(tell())
	}
	cell.Main(func() error {
		_, err := cell.BuildLifecycle(os.TempDir())
		return err
	}, m.Run)
}

func start(t *testing.T, mounts ...container.Mount) *container.Container {
	t.Helper()
	c, err := container.Start(timeout(t), container.Spec{
		Hostname: "box",
		Root:     t.TempDir(),
		Init:     os.Getenv("CELL_LIFECYCLE"),
		Mounts:   mounts,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func bash(script string) container.Process {
	return container.Process{Path: "/bin/bash", Args: []string{"bash", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// run returns everything a process prints.
func run(t *testing.T, c *container.Container, p container.Process) (string, container.ExitStatus) {
	t.Helper()
	var out bytes.Buffer
	p.Stdout = &out
	if !p.TTY {
		p.Stderr = p.Stdout
	}
	proc, err := c.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	status, err := proc.Wait(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), status
}

func TestProcessesAreVcapWithoutCapabilities(t *testing.T) {
	c := start(t)
	out, _ := run(t, c, bash(`id -un; id -u; id -g; hostname; grep -c -E 'Cap(Inh|Prm|Eff|Amb):\s*0+$' /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo refused`))
	if want := "vcap\n2000\n2000\nbox\n4\nrefused"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestProcessesSeeOnlyTheirOwn(t *testing.T) {
	c := start(t)
	out, _ := run(t, c, bash(`cd /proc; tr '\0' ' ' < 1/cmdline; echo; echo $$; ls -d [0-9]* | wc -l`))
	lines := strings.Split(out, "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], "lifecycle init ") {
		t.Fatalf("unexpected %q", out)
	}
	if lines[1] == "1" || lines[2] > "5" {
		t.Errorf("there are more processes than should be: %q", out)
	}
}

func TestRootFileSystem(t *testing.T) {
	c := start(t)
	out, _ := run(t, c, bash(`for d in / /usr /etc /dev /usr/local /run; do touch $d/x 2>/dev/null && echo $d is writable; done
for d in /tmp /var/tmp /home/vcap /dev/shm; do touch $d/x || echo $d is not writable; done
echo x > /dev/null || echo no /dev/null
ls /usr/local; echo $(ls -A /)`))
	var want []string
	for _, name := range []string{"bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp", "usr", "var"} {
		if _, err := os.Lstat("/" + name); err == nil {
			want = append(want, name)
		}
	}
	if got := strings.Fields(out); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	mounts, _ := run(t, c, bash("cat /proc/self/mountinfo"))
	for _, path := range []string{"/root", "/work", "/mnt", "/old_root"} {
		if strings.Contains(mounts, " "+path) {
			t.Errorf("%s is visible:\n%s", path, mounts)
		}
	}
}

func TestMounts(t *testing.T) {
	lower, bound := t.TempDir(), t.TempDir()
	write(t, filepath.Join(lower, "kept"), "from below")
	write(t, filepath.Join(bound, "kept"), "bound")
	c := start(t,
		container.Mount{Lower: []string{lower}, Target: "/home/vcap"},
		container.Mount{Source: bound, Target: "/tmp/bound/deep", ReadOnly: true},
	)
	out, _ := run(t, c, bash(`cd /home/vcap && cat kept && mkdir dir && mv kept dir/new && echo more >> dir/new && cat dir/new
cat /tmp/bound/deep/kept; touch /tmp/bound/deep/x 2>&1`))
	if !strings.HasPrefix(out, "from belowfrom belowmore\nbound") || !strings.Contains(out, "Read-only") {
		t.Errorf("unexpected %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(lower, "kept")); err != nil || string(b) != "from below" {
		t.Errorf("the lower directory was changed: %q %v", b, err)
	}
	if b, err := c.ReadFile("/home/vcap/dir/new"); err != nil || string(b) != "from belowmore\n" {
		t.Errorf("got %q %v", b, err)
	}
}

// write makes a file that vcap may change if it may write at all.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		_ = os.Chown(path, 2000, 2000)
		_ = os.Chown(filepath.Dir(path), 2000, 2000)
		_ = os.Chmod(filepath.Dir(path), 0o777)
	}
}

func TestAllOutputIsSeenBeforeTheEnd(t *testing.T) {
	c := start(t)
	const lines = 50000
	out, _ := run(t, c, bash(fmt.Sprintf("seq %d", lines)))
	if got := strings.Count(out, "\n") + 1; got != lines {
		t.Errorf("got %d lines, want %d", got, lines)
	}
}

func TestGrandchildHoldingThePipeDelaysNobody(t *testing.T) {
	c := start(t)
	out, status := run(t, c, bash("echo first; sleep 1000 & echo last"))
	if out != "first\nlast" || status.Code != 0 {
		t.Errorf("got %q, %s", out, status)
	}
}

func TestStdin(t *testing.T) {
	c := start(t)
	p := bash("cat; echo; cat /proc/self/environ | wc -c")
	p.Stdin = strings.NewReader("fed")
	// An environment may be longer than any datagram.
	for i := range 4 {
		p.Env = append(p.Env, fmt.Sprintf("V%d=%s", i, strings.Repeat("x", 100<<10)))
	}
	out, _ := run(t, c, p)
	if !strings.HasPrefix(out, "fed\n4") || len(out) != len("fed\n409600") {
		t.Errorf("got %q", out)
	}
	out, _ = run(t, c, bash("cat; echo nothing"))
	if out != "nothing" {
		t.Errorf("got %q", out)
	}
}

func TestExitStatusAndSignals(t *testing.T) {
	c := start(t)
	if _, status := run(t, c, bash("exit 3")); status != (container.ExitStatus{Code: 3}) {
		t.Errorf("got %+v", status)
	}
	p, err := c.Run(bash("trap 'exit 4' USR1; while :; do sleep 0.01; done"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // before the trap is set the signal ends it
		if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	status, err := p.Wait(timeout(t))
	if want := (container.ExitStatus{Code: 143, Signal: syscall.SIGTERM}); err != nil || status != want {
		t.Errorf("got %+v %v, want %+v", status, err, want)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Run(container.Process{Path: "/no/such"}); err == nil || !strings.Contains(err.Error(), "failed to run /no/such") {
		t.Errorf("got %v", err)
	}
}

func TestTerminal(t *testing.T) {
	c := start(t)
	p := bash(`[ -t 0 ] && tty && read line && echo "read: $line" && echo for everyone > /dev/tty`)
	p.TTY = true
	p.Stdin = strings.NewReader("typed\n")
	out, status := run(t, c, p)
	for _, want := range []string{"/dev/pts/0", "read: typed", "for everyone"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q (%s), which lacks %q", out, status, want)
		}
	}
}

func TestOrphansAreReaped(t *testing.T) {
	c := start(t)
	if _, status := run(t, c, bash("for i in 1 2 3 4 5; do (sleep 0.0$i &) ; done")); status.Code != 0 {
		t.Fatal(status)
	}
	var all []container.ProcessInfo
	for ctx := timeout(t); ; {
		var err error
		if all, err = c.Processes(); err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && all[0].Pid == 1 && all[0].HostPid == c.Pid() {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still there: %+v", all)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestManyShortProcesses(t *testing.T) {
	c := start(t)
	errs := make(chan error)
	for range 8 {
		go func() {
			for range 25 {
				p, err := c.Run(container.Process{Path: "/bin/true"})
				if err == nil {
					_, err = p.Wait(timeout(t))
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestKillEndsEverything(t *testing.T) {
	c := start(t)
	p, err := c.Run(bash("sleep 1000 & wait"))
	if err != nil {
		t.Fatal(err)
	}
	c.Kill()
	status, err := p.Wait(timeout(t))
	if err != nil || status.Signal != syscall.SIGKILL {
		t.Errorf("got %+v %v", status, err)
	}
	if _, err := c.Run(bash("true")); !errors.Is(err, container.ErrEnded) {
		t.Errorf("got %v", err)
	}
	<-c.Done()
	c.Kill()
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		c, err := container.Start(context.Background(), container.Spec{Root: b.TempDir(), Init: os.Getenv("CELL_LIFECYCLE")})
		if err != nil {
			b.Fatal(err)
		}
		c.Kill()
	}
}

func BenchmarkRun(b *testing.B) {
	c, err := container.Start(context.Background(), container.Spec{Root: b.TempDir(), Init: os.Getenv("CELL_LIFECYCLE")})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Kill()
	for b.Loop() {
		p, err := c.Run(container.Process{Path: "/bin/true"})
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
	}
}
