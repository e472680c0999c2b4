package staging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The test program is the staging program too: what a signal, an environment
// or a full disk does to it is tested on a process of its own.
const asSupply = "MESH_TEST_SUPPLY"

func TestMain(m *testing.M) {
	if os.Getenv(asSupply) == "" {
		os.Exit(m.Run())
	}
	if size := os.Getenv("MESH_TEST_DISK"); size != "" {
		err := errors.Join(
			syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
			syscall.Mount("disk", os.Args[3], "tmpfs", 0, "size="+size))
		if err != nil {
			fmt.Fprintln(os.Stderr, "failed to mount a small disk:", err)
			os.Exit(2)
		}
	}
	err := Supply(context.Background(), os.Args[1], os.Args[2:], os.Stdout)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") {
			fmt.Print(line)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a staging as a process of its own, with a droplet of its own. Its
// environment has no proxies and authorities but those of env.
func (f *foundation) process(deps string, env ...string) (*exec.Cmd, *strings.Builder) {
	f.t.Helper()
	program, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(program, f.buildpack, f.app, f.cache, deps, "0")
	// A program with the race detector sleeps for a second before it ends.
	cmd.Env = append([]string{asSupply + "=1", "GORACE=atexit_sleep_ms=0", "CF_STACK=cflinuxfs4", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// alone runs a staging in a namespace of its own, as root there.
func alone(cmd *exec.Cmd, namespace uintptr) {
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespace}
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | namespace,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

// newDeps is the folder of a droplet's deps, as a container that has just
// started has it; the app is as it was pushed.
func (f *foundation) newDeps() string {
	f.t.Helper()
	deps := f.t.TempDir()
	if err := os.Mkdir(deps+"/0", 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.RemoveAll(f.app + "/.profile.d"); err != nil {
		f.t.Fatal(err)
	}
	return deps
}
