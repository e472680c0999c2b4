package cell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// diskDir is a directory of the machine on a disk; empty: it has none.
var diskDir string

// findDisk looks for it where the user may write.
func findDisk() string {
	cache, _ := os.UserCacheDir()
	for _, dir := range []string{os.TempDir(), "/var/tmp", cache} {
		var about unix.Statfs_t
		inMemory := []int64{unix.TMPFS_MAGIC, unix.RAMFS_MAGIC}
		if unix.Statfs(dir, &about) == nil && !slices.Contains(inMemory, int64(about.Type)) && unix.Access(dir, unix.W_OK) == nil {
			return dir
		}
	}
	return ""
}

// newAppContainer starts a container with a droplet and the app's volumes, for an
// instance of a process type, or for a task, which is of none. The droplet counts
// into the app's disk quota.
func (c *Cell) newAppContainer(ctx context.Context, hostname string, app App, processType string, d *Droplet) (*Guest, error) {
	const home = "/home/vcap"
	spec := guestSpec{hostname: hostname, app: c.appGUID(app), ports: platformPorts(processType), mounts: []container.Mount{
		{Source: c.lifecycleDir(), Target: "/tmp/lifecycle", ReadOnly: true},
	}}
	volumes, err := c.volumeMounts(app)
	if err != nil {
		return nil, err
	}
	size, err := d.size()
	if err != nil {
		return nil, err
	}
	rest := app.Disk - size
	if rest <= 0 {
		return nil, fmt.Errorf("failed to copy the droplet into the container: disk quota exceeded: the droplet has %d MB, the quota is %d MB", size, app.Disk)
	}
	if !app.EnforceMemory {
		spec.mounts = append(append(spec.mounts, container.Mount{Lower: []string{d.Dir}, Target: home, Size: rest}), volumes...)
		return c.newContainer(ctx, app, spec)
	}
	disk, err := newDisk(d.Dir, app.Disk)
	if err != nil {
		return nil, err
	}
	// The container keeps what it has mounted for as long as it lives.
	defer leaveDisk(disk)
	spec.memory = app.Memory
	spec.mounts = append(append(spec.mounts, container.Mount{Source: disk, Target: home}), volumes...)
	return c.newContainer(ctx, app, spec)
}

// size is that of the files in MB, the last one begun.
func (d *Droplet) size() (int, error) {
	var bytes int64
	err := filepath.WalkDir(d.Dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return int((bytes + 1<<20 - 1) >> 20), err
}

// newDisk mounts a file system of so many MB with a copy of what is in from,
// written to a disk, and returns where. No page of it is in memory, so whoever
// reads one pays for it. Its file loses its name at once, and so goes with the last
// mount, whatever ends that. About a fiftieth of it is the file system's own.
func newDisk(from string, size int) (dir string, err error) {
	if diskDir == "" {
		return "", errors.New("failed to make a disk: this machine has only file systems in memory")
	}
	file, err := os.CreateTemp(diskDir, groupPrefix+programName+"-")
	if err != nil {
		return "", fmt.Errorf("failed to make a disk: %w", err)
	}
	defer file.Close()
	defer os.Remove(file.Name())
	if err := file.Truncate(int64(size) << 20); err != nil {
		return "", fmt.Errorf("failed to make a disk: %w", err)
	}
	format := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", "-E", "nodiscard,root_owner=2000:2000", "-d", from, file.Name())
	if output, err := format.CombinedOutput(); err != nil {
		return "", fmt.Errorf("failed to make a disk: %w: %s", err, output)
	}
	device, err := attach(file)
	if err != nil {
		return "", fmt.Errorf("failed to attach a disk: %w", err)
	}
	defer device.Close()
	if dir, err = os.MkdirTemp(workDir, "disk"); err != nil {
		return "", err
	}
	if err := unix.Mount(device.Name(), dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV, "noinit_itable"); err != nil {
		return "", fmt.Errorf("failed to mount a disk: %w", err)
	}
	return dir, os.Remove(filepath.Join(dir, "lost+found"))
}

// attach makes a file a block device, until nobody uses it any more. It goes past
// the page cache, which otherwise had everything twice.
func attach(file *os.File) (device *os.File, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
	for {
		free, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		if device, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", free), os.O_RDWR, 0); err != nil {
			return nil, err
		}
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, err
		}
	}
}

// leaveDisk leaves a disk to those who have mounted it too.
func leaveDisk(dir string) {
	if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "cell: failed to unmount a disk:", err)
	}
}
