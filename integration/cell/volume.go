package cell

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// volumeService is the label of the service that all volumes come from.
const volumeService = "nfs"

// Volume is a service instance of a volume service, bound to an app: files that all
// instances and tasks of the app share, and that stay when they are gone.
type Volume struct {
	// Name of the service instance. Apps that bind the same one have the same
	// files.
	Name string
	// Dir is where containers have it. Defaults to /var/vcap/data/GUID, the GUID
	// being the binding's.
	Dir string
	// ReadOnly forbids the app to write.
	ReadOnly bool
}

func (v Volume) mode() string {
	if v.ReadOnly {
		return "r"
	}
	return "rw"
}

// VolumeDir is where this process finds a volume's files. It is there when an app
// that has bound the volume was started.
func (c *Cell) VolumeDir(name string) string { return filepath.Join(c.dir, "volumes", name) }

// volumeMounts makes volumes that are missing, which belong to vcap.
func (c *Cell) volumeMounts(app App) (mounts []container.Mount, err error) {
	for _, v := range app.Volumes {
		dir := c.VolumeDir(v.Name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Lchown(dir, c.vcap, c.vcap)); err != nil {
			return nil, fmt.Errorf("failed to make volume %s: %w", v.Name, err)
		}
		mounts = append(mounts, container.Mount{Source: dir, Target: c.volumeDir(app, v), ReadOnly: v.ReadOnly})
	}
	return mounts, nil
}

func (c *Cell) volumeDir(app App, v Volume) string {
	if v.Dir != "" {
		return v.Dir
	}
	return "/var/vcap/data/" + c.volumeBinding(app, v)
}

func (c *Cell) volumeBinding(app App, v Volume) string { return c.guid("binding", app.Name+"/"+v.Name) }

// services is VCAP_SERVICES with the app's volumes in it.
func (c *Cell) services(app App) (string, error) {
	if len(app.Volumes) == 0 || app.VcapServices == "-" {
		return app.VcapServices, nil
	}
	var all map[string][]any
	if err := json.Unmarshal([]byte(app.VcapServices), &all); err != nil {
		return "", fmt.Errorf("failed to add volumes to VCAP_SERVICES: %w", err)
	}
	for _, v := range app.Volumes {
		all[volumeService] = append(all[volumeService], map[string]any{
			"label": volumeService, "provider": nil, "plan": "Existing", "tags": []string{volumeService},
			"name": v.Name, "instance_name": v.Name, "instance_guid": c.guid("volume", v.Name),
			"binding_name": nil, "binding_guid": c.volumeBinding(app, v),
			"credentials": map[string]any{}, "syslog_drain_url": nil,
			"volume_mounts": []map[string]string{{
				"container_dir": c.volumeDir(app, v), "mode": v.mode(), "device_type": "shared",
			}},
		})
	}
	text, err := json.Marshal(all)
	return string(text), err
}
