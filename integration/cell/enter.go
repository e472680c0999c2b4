package cell

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// workDir is where everything that a cell writes is: a tmpfs that only this
// process' mount namespace has.
var workDir string

// enter furnishes the new namespaces.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("failed to make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("failed to mount /proc: %w", err)
	}
	dir, err := freeDirectory()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("failed to mount a tmpfs on %s: %w", dir, err)
	}
	workDir, diskDir = dir, findDisk()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o1777); err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", tmp); err != nil {
		return err
	}
	return furnishNetwork()
}

// freeDirectory is a directory that can be covered: nobody who runs a program
// from here has anything in it.
func freeDirectory() (string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	inUse := []string{cwd}
	for _, variable := range os.Environ() { // programs, buildpacks, HOME and TMPDIR
		_, value, _ := strings.Cut(variable, "=")
		inUse = append(inUse, value)
	}
	for _, dir := range []string{"/mnt", "/media", "/srv"} {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || holdsAny(dir, inUse) {
			continue
		}
		return dir, nil
	}
	return "", errors.New("none of /mnt, /media and /srv is there to be covered")
}

func holdsAny(dir string, paths []string) bool {
	for _, p := range paths {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

func furnishNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("failed to find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("failed to bring lo up: %w", err)
	}
	if err := sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	// A refused connection has to be refused each time, not most of the time.
	if err := sysctl("net/ipv4/icmp_ratelimit", "0"); err != nil {
		return err
	}
	// Where this is the machine's and not the namespace's it is not ours to set.
	_ = sysctl("net/ipv4/icmp_msgs_per_sec", "1000000")
	_ = sysctl("net/ipv4/icmp_msgs_burst", "1000000")
	return nil
}

func sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("failed to set %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}
