package compat

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// What a user of 0.1.0 has: files, a bound service, and policies.

// binding is what the service says that an app has bound since 0.1.0, with tokens
// that have exactly the policies that its meshctl prints.
func (s *system) binding(t *testing.T, a cell.App) map[string]any {
	t.Helper()
	dir := t.TempDir()
	if _, err := meshctl(t.Context(), s.Binaries.FirstRelease(), "acl", "-app", a.Name, "-out", dir, filepath.Join(a.Dir, "mesh.hcl")); err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	for _, policy := range []string{"agent", "services"} {
		name := a.Name + "-" + policy
		rules, err := os.ReadFile(filepath.Join(dir, name+".hcl"))
		if err != nil {
			t.Fatal(err)
		}
		tokens[policy], err = s.Token(t.Context(), render.Policy{Name: name, About: "as 0.1.0 prints it", Rules: []string{string(rules)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]any{
		"agent_token": tokens["agent"], "service_token": tokens["services"],
		"addresses": []string{foundation.SecureApp + ".apps.internal"}, "datacenter": "cf", "default_policy": "deny",
		"ca": s.Secure.CA.PEM, "gossip_key": s.Secure.GossipKey, "auto_encrypt": true, "verify_server_hostname": true,
	}
}

// TestFiles: what 0.1.0 takes for a good mesh.hcl is one. The files are those that
// its own tests have, with every block and key.
func TestFiles(t *testing.T) {
	first := open.Binaries.FirstRelease()
	files, err := filepath.Glob(filepath.Join(first.Root, "src", "render", "testdata", "*.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	good := 0
	for _, file := range files {
		if _, err := meshctl(t.Context(), first, "validate", "-app", "shop", file); err != nil {
			continue // for an environment that is not here
		}
		good++
		// 0.1.0 took what nobody had said of the app for empty, as staging still does.
		if output, err := meshctl(t.Context(), open.Binaries, "validate", "-app", "shop", "-space", "", "-org", "", "-id", "", "-route", "", file); err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(file), err, output)
		}
	}
	if good < len(files)/2 || good == 0 {
		t.Errorf("0.1.0 takes %d of %d files", good, len(files))
	}
}

// meshctl runs a version's meshctl.
func meshctl(ctx context.Context, version binaries.Set, args ...string) (string, error) {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(version.Build(), "meshctl"), args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("meshctl %s: %w\n%s", args[0], err, &output)
	}
	return strings.TrimSpace(output.String()), nil
}

// forget removes what is not needed any more: a droplet weighs much memory.
func (s *system) forget(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
