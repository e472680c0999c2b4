package staging

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// tryPrograms has the programs judge what the app adds to how they are started: it would
// stop them in the container otherwise.
func (p *platform) tryPrograms(ctx context.Context, mesh *meshfile.Mesh) error {
	if mesh.HasAgentConfig() {
		// The address comes from the overlay in the container.
		err := p.try(ctx, "consul", `{"bind_addr": "127.0.0.1"}`, func(overlay string) []string {
			return []string{"validate", filepath.Join(p.depDir(), droplet.AgentFile), overlay}
		}, "Consul refuses what config adds to its own", "config has the keys of Consul's agent configuration file")
		if err != nil {
			return err
		}
	}
	if len(mesh.Envoy.ExtraArgs) == 0 {
		return nil
	}
	return p.try(ctx, "envoy", `{}`, func(bootstrap string) []string {
		return append([]string{"--mode", "validate", "--config-path", bootstrap, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"}, mesh.Envoy.ExtraArgs...)
	}, "Envoy refuses extra_args", "extra_args has arguments of Envoy's command line, each an item of its own: [\"--drain-time-s\", \"5\"]")
}

// try runs a program of the droplet. arguments has those that go with a file of the
// given content.
func (p *platform) try(ctx context.Context, name, content string, arguments func(file string) []string, refuses, hint string) error {
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		return fmt.Errorf("failed to try %s: %w", name, err)
	}
	defer os.RemoveAll(dir)
	file, program := filepath.Join(dir, "file.json"), filepath.Join(p.depDir(), droplet.BinDir, name)
	if err := writeFile(file, []byte(content)); err != nil {
		return fmt.Errorf("failed to try %s: %w", name, err)
	}
	output, err := exec.CommandContext(ctx, program, arguments(file)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s: %s: %s\nhint: %s", meshfile.Name, name, refuses, saidBefore(string(output), "Brief USAGE:", err), hint)
	}
	return nil
}

// saidBefore is what a program has said before a mark, without blank lines, or how it
// has ended where that is nothing.
func saidBefore(output, mark string, ended error) string {
	output, _, _ = strings.Cut(output, mark)
	var lines []string
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return ended.Error()
	}
	return strings.Join(lines, "\n")
}
