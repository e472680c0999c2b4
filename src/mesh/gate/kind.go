package gate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// Kinds of commands that are not the app's, beside KindApp and kindMaybe of
// the gate.
const (
	kindTask    = "task"    // has no sidecars
	kindForeign = "foreign" // a sidecar of another buildpack, or a process without a service
)

// kindOf tells what a command is. Cloud Foundry's launcher starts the app's
// process, every sidecar and tasks in the same way; what the droplet declares
// tells them apart. A command that nobody declares is kindMaybe: `cf push -c`,
// or a sidecar from the app's own manifest.
func kindOf(i instance.Instance, config droplet.Config, command string) (string, error) {
	if i.Process == "" {
		return kindTask, nil
	}
	if len(config.Services) == 0 {
		return kindForeign, nil
	}
	declared, err := declaredBy(i)
	if err != nil {
		return "", err
	}
	for _, p := range declared {
		switch {
		case p.Command != command:
		case p.Platforms.CloudFoundry.SidecarFor != nil:
			return kindForeign, nil
		case p.Type == i.Process:
			return KindApp, nil
		}
	}
	return kindMaybe, nil
}

// declaredProcess is one entry of a launch.yml (buildpackapplifecycle,
// buildpackrunner/resources); SidecarFor is nil for a process.
type declaredProcess struct {
	Type      string `yaml:"type"`
	Command   string `yaml:"command"`
	Platforms struct {
		CloudFoundry struct {
			SidecarFor []string `yaml:"sidecar_for"`
		} `yaml:"cloudfoundry"`
	} `yaml:"platforms"`
}

// declaredBy lists the processes and sidecars that the droplet names: in every
// buildpack's launch.yml, in the app's Procfile, and in staging_info.yml,
// where a last buildpack's bin/release ends up.
func declaredBy(i instance.Instance) ([]declaredProcess, error) {
	var all []declaredProcess
	files, err := filepath.Glob(filepath.Join(filepath.Dir(i.Deps), "*", droplet.LaunchFile))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		var launch struct {
			Processes []declaredProcess `yaml:"processes"`
		}
		if err := readYAML(file, &launch); err != nil {
			return nil, err
		}
		all = append(all, launch.Processes...)
	}
	var procfile map[string]string
	if err := readYAML(filepath.Join(i.Top, "app", "Procfile"), &procfile); err != nil {
		return nil, err
	}
	for processType, command := range procfile {
		all = append(all, declaredProcess{Type: processType, Command: command})
	}
	var staged struct {
		StartCommand string `yaml:"start_command"`
	}
	if err := readYAML(filepath.Join(i.Top, "staging_info.yml"), &staged); err != nil {
		return nil, err
	}
	all = append(all, declaredProcess{Type: "web", Command: staged.StartCommand})
	// Where the texts are the same, a sidecar is recognised first.
	slices.SortStableFunc(all, func(a, b declaredProcess) int {
		return len(b.Platforms.CloudFoundry.SidecarFor) - len(a.Platforms.CloudFoundry.SidecarFor)
	})
	return all, nil
}

// readYAML reads a file that may be missing. (staging_info.yml is JSON, which
// YAML contains.)
func readYAML(path string, value any) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("failed to read the droplet's processes: %w", err)
	}
	if err := yaml.Unmarshal(text, value); err != nil {
		return fmt.Errorf("failed to read %s: %w", path, err)
	}
	return nil
}
