// Package instance is one instance of the app in its container: what the platform
// says of it, where its files are, what its programs have logged, and how long
// everything may take (budgets.go).
package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Instance is one instance of the app: where its files are, and what differs
// between it and the others.
type Instance struct {
	Deps   string // the buildpack's folder, deps/IDX
	Top    string // the droplet's top, /home/vcap
	RunDir string // private to the sidecars, ends with the container

	API          string // of the foundation, which tells it from others
	App          string // application name
	AppGUID      string
	Space        string
	Organization string
	Route        string // the first, empty without one
	Process      string // process type, empty in a task and while staging
	GUID         string // of the instance, 28 characters on Cloud Foundry
	Index        string
	Address      netip.Addr // the container's own, on the container network
	Port         int        // PORT, zero where the platform gave none
	Memory       int        // what the process may use, in MB, zero where it is not said

	files  string              // the folder below Deps of what staging left, empty for Deps
	getenv func(string) string // where the bound services are found
}

// New reads the environment that Cloud Foundry gives a process, and
// finds the files from the path of the running program, deps/IDX/bin/mesh.
func New(program string, getenv func(string) string) (Instance, error) {
	deps := filepath.Dir(filepath.Dir(program))
	top := filepath.Dir(filepath.Dir(deps))
	inst := Instance{
		Deps: deps, Top: top, RunDir: filepath.Join(top, droplet.RunDir),
		GUID: getenv("CF_INSTANCE_GUID"), Index: getenv("CF_INSTANCE_INDEX"),
		getenv: getenv,
	}
	var app struct {
		API     string   `json:"cf_api"`
		GUID    string   `json:"application_id"`
		Name    string   `json:"application_name"`
		Process string   `json:"process_type"`
		Space   string   `json:"space_name"`
		Org     string   `json:"organization_name"`
		URIs    []string `json:"application_uris"`
	}
	if text := getenv("VCAP_APPLICATION"); text != "" {
		if err := json.Unmarshal([]byte(text), &app); err != nil {
			return inst, fmt.Errorf("failed to read VCAP_APPLICATION: %w", err)
		}
	}
	inst.API, inst.App, inst.AppGUID, inst.Process, inst.Space, inst.Organization = app.API, app.Name, app.GUID, app.Process, app.Space, app.Org
	if len(app.URIs) > 0 {
		inst.Route = app.URIs[0]
	}
	if _, err := os.Stat(filepath.Join(deps, droplet.TaskDir)); app.Process == "" && err == nil {
		inst.files = droplet.TaskDir
	}
	inst.Port, _ = strconv.Atoi(getenv("PORT"))
	inst.Memory, _ = strconv.Atoi(strings.TrimSuffix(getenv("MEMORY_LIMIT"), "m"))
	if text := getenv("CF_INSTANCE_INTERNAL_IP"); text != "" {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return inst, fmt.Errorf("failed to read CF_INSTANCE_INTERNAL_IP: %w", err)
		}
		inst.Address = address
	}
	return inst, nil
}

// RequirePlatform refuses an environment in which no agent can run.
func (i Instance) RequirePlatform() error {
	if i.GUID == "" || !i.Address.IsValid() {
		return errors.New("CF_INSTANCE_GUID or CF_INSTANCE_INTERNAL_IP is not set\n" +
			"hint: the sidecars are started by Cloud Foundry from the droplet's launch.yml")
	}
	return nil
}

// MakeRunDir makes the folder that is private to the sidecars.
func (i Instance) MakeRunDir() error {
	if err := os.MkdirAll(i.RunDir, 0o700); err != nil {
		return fmt.Errorf("failed to make the run folder of the sidecars: %w", err)
	}
	return nil
}

// Path is that of a file that staging left, Program that of a program, and Gate that
// of the socket where proxy, app and status meet.
func (i Instance) Path(file string) string    { return filepath.Join(i.Deps, i.files, file) }
func (i Instance) Program(name string) string { return filepath.Join(i.Deps, droplet.BinDir, name) }
func (i Instance) Gate() string               { return filepath.Join(i.RunDir, "proxy.sock") }

// NodeName is the name of the instance's Consul node.
func (i Instance) NodeName() string { return droplet.NodeName(i.App, i.GUID) }

// NodeID is a version-5 UUID of the GUID, which is no whole UUID itself.
func (i Instance) NodeID() string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(i.GUID)).String()
}

// Config reads mesh.json and keeps the services of this instance's process.
func (i Instance) Config() (droplet.Config, error) {
	var config droplet.Config
	if err := ReadJSON(i.Path(droplet.ConfigFile), &config); err != nil {
		return config, err
	}
	var mine []droplet.Service
	for _, service := range config.Services {
		if service.Process == i.Process {
			mine = append(mine, service)
		}
	}
	config.Services = mine
	return config, nil
}

// ReadJSON reads a file of the droplet, or one that the sidecars have written.
func ReadJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("failed to read what staging left: %w\nhint: restage the app", err)
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("failed to read %s: %w\nhint: restage the app", path, err)
	}
	return nil
}

// NoteMemory says once that the sidecars take more memory than they leave.
func (i Instance) NoteMemory(config droplet.Config, log wait.Log) {
	if i.Memory > 0 && i.Memory < config.SidecarMemory {
		log("the sidecars take %d MB off this app's memory, which leaves it %d MB: push with more (cf push -m), or lower memory in mesh.hcl",
			config.SidecarMemory, i.Memory)
	}
}

// SmallEnv is the environment of Consul and Envoy: other buildpacks'
// LD_PRELOAD, proxies and credentials are none of their business.
func (i Instance) SmallEnv() []string {
	return []string{
		"HOME=" + i.RunDir, "TMPDIR=" + i.RunDir,
		"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
	}
}

// Node metadata.
const (
	metaAPI     = "cf-api"
	MetaApp     = "cf-app" // which tells nodes of this buildpack from others
	MetaProcess = "cf-process"
	MetaTask    = "cf-task" // the name of tasks
	metaIndex   = "cf-index"
)

// NodeMeta is what the catalog is told of the instance's node.
func (i Instance) NodeMeta() map[string]string {
	meta := map[string]string{MetaApp: i.App, MetaProcess: i.Process, metaIndex: i.Index}
	if i.API != "" {
		meta[metaAPI] = i.API
	}
	return meta
}

// HasReused says that a node with this instance's address is of the same foundation,
// so that the platform has given its address to this one: it is dead. Others may have
// the same range of addresses.
func (i Instance) HasReused(meta map[string]string) bool {
	return i.API != "" && meta[metaAPI] == i.API
}
