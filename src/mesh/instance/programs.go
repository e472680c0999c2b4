package instance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/packed"
)

// CheckPrograms says plainly that a program is not there, or not to be run. One that is
// packed is there.
func CheckPrograms(inst Instance, names ...string) error {
	for _, name := range names {
		if _, err := os.Stat(inst.Program(name) + packed.Suffix); err == nil {
			continue
		}
		info, err := os.Stat(inst.Program(name))
		switch {
		case err != nil:
			return fmt.Errorf("failed to find %s in the droplet: %w\nhint: restage the app", name, err)
		case info.Mode()&0o111 == 0:
			return fmt.Errorf("%s is not executable\nhint: restage the app", inst.Program(name))
		}
	}
	return nil
}

// Unpack unpacks a program that is packed.
func Unpack(inst Instance, name string) error {
	_, err := packed.Program(filepath.Join(inst.Deps, droplet.BinDir), name)
	debug.FreeOSMemory() // what that took would stay with this process
	return err
}

// CheckPort tries to listen and stops again at once.
func CheckPort(ctx context.Context, host string, port int) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return errors.New("another process of the app listens there\n" +
			"hint: `cf ssh` and `ss -ltnp` show which; the ports of the mesh are listed in docs/mesh-hcl.md")
	}
	if err != nil {
		return err
	}
	return listener.Close()
}
