package instance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// CheckPrograms says plainly that a program is not there, or not to be run.
func CheckPrograms(inst Instance, names ...string) error {
	for _, name := range names {
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
