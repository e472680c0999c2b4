package gate

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// environVariable has the number of the descriptor at which the app's environment is,
// each entry with a zero byte at its end.
const environVariable = "MESH_APP_ENVIRONMENT"

// AppEnvironment is the app's environment, for `mesh app`, which is started in it. It
// is no environment for this program: so that takes its own place once more with what
// it needs, and finds the rest in memory that nobody else can read.
func AppEnvironment(exec Exec) ([]string, error) {
	if text, again := os.LookupEnv(environVariable); again {
		return inherited(text)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("failed to find this program: %w", err)
	}
	fd, err := keep(os.Environ())
	if err != nil {
		return os.Environ(), nil // the app comes first
	}
	return nil, exec(program, os.Args, append(ownEnvironment(), environVariable+"="+strconv.Itoa(fd)))
}

// ownEnvironment is what this program needs of the environment.
func ownEnvironment() (own []string) {
	for _, name := range droplet.Environment {
		if value, is := os.LookupEnv(name); is {
			own = append(own, name+"="+value)
		}
	}
	return own
}

// keep writes an environment into memory, and gives the descriptor of it.
func keep(entries []string) (fd int, err error) {
	fd, err = unix.MemfdCreate("environment", 0)
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		for rest := []byte(entry + "\x00"); len(rest) > 0 && err == nil; {
			var n int
			n, err = unix.Write(fd, rest)
			rest = rest[max(n, 0):]
		}
	}
	if err == nil {
		_, err = unix.Seek(fd, 0, io.SeekStart)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was kept
	}
	return fd, err
}

// inherited reads what this program has kept before it started anew.
func inherited(descriptor string) ([]string, error) {
	fd, err := strconv.Atoi(descriptor)
	if err != nil || fd <= unix.Stderr {
		return nil, fmt.Errorf("%s is %q: it is this buildpack's own, and not for the app to set", environVariable, descriptor)
	}
	file := os.NewFile(uintptr(fd), "environment")
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("failed to read the app's environment: %w", err)
	}
	return strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00"), nil
}
