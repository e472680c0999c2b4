package cell

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	lifecycleEnv     = "CELL_LIFECYCLE"
	lifecyclePackage = "github.com/consul-mesh/mesh-buildpack/integration/lifecycle"
)

// BuildLifecycle builds the program that runs in containers into dir and makes
// it known to cells of this process and of the inner half. If one is known
// already, nothing is built. It is to be called in Prepare.
func BuildLifecycle(dir string) (path string, err error) {
	if path := os.Getenv(lifecycleEnv); path != "" {
		return path, nil
	}
	path, err = filepath.Abs(filepath.Join(dir, "lifecycle"))
	if err != nil {
		return "", err
	}
	// Static, because a container has other libraries than the machine.
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, lifecyclePackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("failed to build the lifecycle program: %w\n%s", err, out)
	}
	return path, os.Setenv(lifecycleEnv, path)
}

// installLifecycle makes dir what /tmp/lifecycle is in containers: one program
// under several names, and what takes its place.
func installLifecycle(o Options, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	programs := map[string]string{"lifecycle": o.Lifecycle, "builder": o.Builder, "launcher": o.Launcher, "shell": "", "healthcheck": ""}
	for name, program := range programs {
		if program == "" && name != "lifecycle" {
			if err := os.Symlink("lifecycle", filepath.Join(dir, name)); err != nil {
				return err
			}
			continue
		}
		b, err := os.ReadFile(program)
		if err != nil {
			return fmt.Errorf("failed to read the lifecycle's %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}
