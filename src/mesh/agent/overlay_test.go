package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/meshtest"
)

// boundInstance is an instance with a bound service, whose private folder goes
// with the test.
func boundInstance(t *testing.T, agent, app, binding string) (instance.Instance, string) {
	t.Helper()
	application, err := json.Marshal(map[string]string{"application_name": app, "process_type": "web"})
	if err != nil {
		t.Fatal(err)
	}
	inst := meshtest.InstanceOf(t, map[string]string{"agent.json": agent, "mesh.json": `{"services": []}`}, map[string]string{
		"VCAP_APPLICATION": string(application), "CF_INSTANCE_GUID": uuid.NewString()[:28], "CF_INSTANCE_INTERNAL_IP": "10.255.0.4",
		"VCAP_SERVICES": `{"user-provided":[{"name":"b","tags":["consul"],"credentials":` + binding + `}]}`,
	})
	dir, err := inst.PrivateDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return inst, dir
}

// TestOverlayOfABoundService: what is secret is in files of our own, and text
// from outside stays text.
func TestOverlayOfABoundService(t *testing.T) {
	t.Parallel()
	const agent = `{"datacenter": "dc1", "retry_join": ["there"], "log_level": "warn"}`
	inst, dir := boundInstance(t, agent, "\"}, acl { enabled = false }\n#", `{"token": "tok${}", "retry_join": ["a\"b"], "datacenter": "cf",
		"gossip_key": "aPuGh+5UDskRAbkLaXRzFoSOcSM+5vAK+NEYOWHJH7w=", "default_policy": "deny"}`)
	files, err := writeOverlay(inst)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{filepath.Join(dir, "staged.json"), filepath.Join(dir, "agent.json")}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	var staged, overlay map[string]any
	for i, into := range []*map[string]any{&staged, &overlay} {
		if err := instance.ReadJSON(files[i], into); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(files[i])
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", files[i], info.Mode(), err)
		}
	}
	if diff := cmp.Diff(map[string]any{"datacenter": "dc1", "log_level": "warn"}, staged); diff != "" {
		t.Errorf("staged (-want +got):\n%s", diff)
	}
	acl, _ := overlay["acl"].(map[string]any)
	tokens, _ := acl["tokens"].(map[string]any)
	local := tokens["agent_recovery"]
	for key, want := range map[string]any{
		"datacenter": "cf", "retry_join": []any{`a"b`}, "encrypt": "aPuGh+5UDskRAbkLaXRzFoSOcSM+5vAK+NEYOWHJH7w=",
		"default_intention_policy": "deny", "data_dir": filepath.Join(dir, "consul"), "tls": nil, "auto_encrypt": nil,
		"acl": map[string]any{"enabled": true, "default_policy": "deny", "down_policy": "extend-cache",
			"tokens": map[string]any{"agent": "tok${}", "agent_recovery": local}},
	} {
		if diff := cmp.Diff(want, overlay[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	if text, _ := local.(string); len(text) != 36 {
		t.Errorf("the local token is %q", text)
	}
	inst.RemovePrivate()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the private folder is still there: %v", err)
	}
}

// TestDefaultPolicy: the file may open what the binding closes.
func TestDefaultPolicy(t *testing.T) {
	t.Parallel()
	for agent, want := range map[string]string{`{}`: "deny", `{"default_intention_policy": "allow"}`: "allow"} {
		inst, _ := boundInstance(t, agent, "app", `{"token": "t"}`)
		files, err := writeOverlay(inst)
		if err != nil {
			t.Fatal(err)
		}
		var overlay map[string]any
		if err := instance.ReadJSON(files[len(files)-1], &overlay); err != nil {
			t.Fatal(err)
		}
		if got := overlay["default_intention_policy"]; got != want {
			t.Errorf("%s: %v", agent, got)
		}
	}
}

// TestPrivateDir: a folder that others may look into is not taken.
func TestPrivateDir(t *testing.T) {
	t.Parallel()
	inst, dir := boundInstance(t, `{}`, "app", `{"token": "t"}`)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other, err := inst.PrivateDir()
	if other == dir {
		t.Errorf("an open folder is taken: %v", err)
	}
}
