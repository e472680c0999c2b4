package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	vcapID = 2000

	readOnly = unix.MOUNT_ATTR_RDONLY
	confined = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
)

// rootFS builds a container's root file system below dir, seen only by the
// mount namespace of the process that builds it.
type rootFS struct {
	dir string
	// userNS: an overlay keeps its marks in user attributes, because trusted
	// ones are the real root's alone.
	userNS bool
}

// build makes everything that is in the container and moves the process into
// it.
func (r rootFS) build(spec *Spec) error {
	unix.Umask(0)
	defer unix.Umask(0o022)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("failed to make mounts private: %w", err)
	}
	if err := r.tmpfs("/", "mode=755"); err != nil {
		return err
	}
	steps := []func() error{r.system, r.etc, r.dev, r.proc, r.scratch}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	for _, f := range spec.Files {
		if err := r.file(f); err != nil {
			return err
		}
	}
	for _, m := range spec.Mounts {
		if err := r.mount(m); err != nil {
			return fmt.Errorf("failed to mount %s: %w", m.Target, err)
		}
	}
	return r.enter()
}

// system binds the programs and libraries of the machine.
func (r rootFS) system() error {
	for _, name := range []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		path := "/" + name
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(to, r.dir+path); err != nil {
				return err
			}
		default:
			if err := r.bind(path, path, readOnly|confined); err != nil {
				return err
			}
		}
	}
	// What an administrator has put on the machine is on no stack.
	if _, err := os.Stat(r.dir + "/usr/local"); err != nil {
		return nil
	}
	if err := r.tmpfs("/usr/local", "mode=755"); err != nil {
		return err
	}
	return setAttr(r.dir+"/usr/local", readOnly, 0)
}

// etc has of the machine's only what programs need to find libraries and
// certificates.
func (r rootFS) etc() error {
	for _, name := range []string{
		"ssl", "pki", "ca-certificates", "crypto-policies", "alternatives",
		"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "services", "protocols", "localtime",
	} {
		path := "/etc/" + name
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := r.bind(path, path, readOnly|confined); err != nil {
			return err
		}
	}
	for _, f := range []File{
		{Path: "/etc/passwd", Content: "root:x:0:0:root:/root:/bin/bash\nvcap:x:2000:2000::/home/vcap:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"},
		{Path: "/etc/group", Content: "root:x:0:\ntty:x:5:\nvcap:x:2000:\nnogroup:x:65534:\n"},
		{Path: "/etc/nsswitch.conf", Content: "passwd: files\ngroup: files\nhosts: files dns\n"},
		{Path: "/etc/hosts", Content: "127.0.0.1 localhost\n"},
		{Path: "/etc/resolv.conf"},
	} {
		if err := r.file(f); err != nil {
			return err
		}
	}
	return nil
}

// dev has the devices of any container. They are bound because nobody but the
// real root may make device nodes.
func (r rootFS) dev() error {
	if err := r.tmpfs("/dev", "mode=755"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := r.bind("/dev/"+name, "/dev/"+name, unix.MOUNT_ATTR_NOSUID); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, r.dir+"/dev/"+name); err != nil {
			return err
		}
	}
	if err := os.Mkdir(r.dir+"/dev/pts", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devpts", r.dir+"/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("failed to mount /dev/pts: %w", err)
	}
	if err := r.tmpfs("/dev/shm", "mode=1777"); err != nil {
		return err
	}
	return setAttr(r.dir+"/dev", readOnly, 0)
}

func (r rootFS) proc() error {
	if err := os.Mkdir(r.dir+"/proc", 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", r.dir+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("failed to mount /proc: %w", err)
	}
	return nil
}

// scratch has the directories that vcap may write to.
func (r rootFS) scratch() error {
	for _, dir := range []string{"/run", "/home", "/var"} {
		if err := os.Mkdir(r.dir+dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		if err := r.tmpfs(dir, "mode=1777"); err != nil {
			return err
		}
	}
	return r.mount(Mount{Target: "/home/vcap", Tmpfs: true})
}

func (r rootFS) mount(m Mount) error {
	switch {
	case m.Source != "":
		attr := uint64(confined)
		if m.ReadOnly {
			attr |= readOnly
		}
		return r.bind(m.Source, m.Target, attr)
	case len(m.Lower) > 0:
		return r.overlay(m)
	default:
		return r.tmpfs(m.Target, fmt.Sprintf("mode=755,uid=%d,gid=%d", vcapID, vcapID))
	}
}

// bind makes the target if it is missing, of the same kind as the source.
func (r rootFS) bind(source, target string, attr uint64) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	to := r.dir + target
	if info.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else {
		err = touch(to)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("failed to bind %s: %w", source, err)
	}
	if err := setAttr(to, attr, unix.AT_RECURSIVE); err != nil {
		return fmt.Errorf("failed to confine %s: %w", source, err)
	}
	return nil
}

// overlay keeps the changes on a tmpfs that nothing else refers to once the
// overlay holds it.
func (r rootFS) overlay(m Mount) error {
	const hidden = "/.changes"
	limit := "mode=755"
	if m.Size > 0 {
		limit += fmt.Sprintf(",size=%dm", m.Size)
	}
	if err := r.tmpfs(hidden, limit); err != nil {
		return err
	}
	upper, work := r.dir+hidden+"/upper", r.dir+hidden+"/work"
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(upper, vcapID, vcapID); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir+m.Target, 0o755); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(m.Lower, ":"), upper, work)
	if r.userNS {
		options += ",userxattr"
	}
	if err := unix.Mount("overlay", r.dir+m.Target, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return err
	}
	if err := unix.Unmount(r.dir+hidden, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(r.dir + hidden)
}

func (r rootFS) tmpfs(target, options string) error {
	if err := os.MkdirAll(r.dir+target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", r.dir+target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("failed to mount a tmpfs on %s: %w", target, err)
	}
	return nil
}

func (r rootFS) file(f File) error {
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	path := r.dir + f.Path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(f.Content), mode)
}

// enter makes the root file system the process's own and lets go of the
// machine's.
func (r rootFS) enter() error {
	if err := os.Chdir(r.dir); err != nil {
		return err
	}
	// With the same directory twice the old root lands on top of the new one,
	// where it can be taken off: no directory has to be left for it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("failed to change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("failed to let go of the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return setAttr("/", readOnly|confined, 0)
}

func setAttr(path string, attr uint64, flags uint) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, flags, &unix.MountAttr{Attr_set: attr})
}

func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
