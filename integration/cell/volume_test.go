package cell_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestVolumes: all containers of an app have the same files, which outlive them.
func TestVolumes(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Instances = 2
	a.VcapServices = `{"consul": [{"name": "mesh"}], "nfs": [{"name": "given"}]}`
	a.Volumes = []cell.Volume{{Name: "data"}, {Name: "more", Dir: "/home/vcap/app/more"}}
	r := push(t, c, a)
	env := environment(t, r.Instance(0), r.Instance(0).Processes()[0].Pid)
	var services map[string][]struct {
		Name         string
		VolumeMounts []struct {
			ContainerDir string `json:"container_dir"`
			Mode         string `json:"mode"`
			DeviceType   string `json:"device_type"`
		} `json:"volume_mounts"`
	}
	must(t, json.Unmarshal([]byte(env["VCAP_SERVICES"]), &services))
	if len(services["consul"]) != 1 || len(services["nfs"]) != 3 || services["nfs"][1].Name != "data" {
		t.Fatalf("got %s", env["VCAP_SERVICES"])
	}
	mounts := services["nfs"][1].VolumeMounts
	if len(mounts) != 1 || mounts[0].Mode != "rw" || mounts[0].DeviceType != "shared" || !strings.HasPrefix(mounts[0].ContainerDir, "/var/vcap/data/") {
		t.Fatalf("got %v", mounts)
	}
	dir := mounts[0].ContainerDir

	ssh(t, r.Instance(0), "echo -n one > "+dir+"/file; echo -n more > /home/vcap/app/more/file")
	if got := ssh(t, r.Instance(1), "stat -c %U "+dir+"; cat "+dir+"/file /home/vcap/app/more/file"); got != "vcap\nonemore" {
		t.Errorf("another instance has %q", got)
	}
	must(t, r.Restart(timeout(t)))
	must(t, r.WaitRunning(timeout(t)))
	if status, err := r.Task(timeout(t), "echo -n two >> "+dir+"/file"); err != nil || status.Code != 0 {
		t.Errorf("a task: %v %v", status, err)
	}
	if got := ssh(t, r.Instance(0), "cat "+dir+"/file"); got != "onetwo" {
		t.Errorf("after a restart and a task there is %q", got)
	}
	must(t, r.Delete(timeout(t)))

	b := app(t, "reader", nil)
	b.Volumes = []cell.Volume{{Name: "data", Dir: "/data", ReadOnly: true}}
	reader := push(t, c, b)
	if got := ssh(t, reader.Instance(0), "cat /data/file; touch /data/other 2>&1 || true"); !strings.HasPrefix(got, "onetwo") || !strings.Contains(got, "Read-only") {
		t.Errorf("who may only read: %s", got)
	}
	text, err := os.ReadFile(filepath.Join(c.VolumeDir("data"), "file"))
	if err != nil || string(text) != "onetwo" {
		t.Errorf("this process sees %q %v", text, err)
	}
	b.Name, b.VcapServices = "broken", "no JSON"
	if _, err := c.Push(timeout(t), b); err == nil || !strings.Contains(err.Error(), "VCAP_SERVICES") {
		t.Errorf("got %v", err)
	}
}
