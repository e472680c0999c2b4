package cell

import "time"

// Kinds of health check.
const (
	HealthPort    = "port"    // the instance's address answers on 8080
	HealthHTTP    = "http"    // and HealthPath answers 200 there
	HealthProcess = "process" // the process exists
)

// App is what a manifest says about an app.
type App struct {
	Name string
	// Dir is the app's source. It is copied at staging.
	Dir string
	// Buildpacks in order, the last one finalizes. None: the cell's system
	// buildpacks are asked to detect.
	Buildpacks []Buildpack
	// Env are the user's environment variables, at staging and at run time.
	Env map[string]string
	// VcapServices is VCAP_SERVICES as JSON. Defaults to "{}"; "-" is none, as
	// for apps that get their services in files.
	VcapServices string
	// Memory of each process in MB, its sidecars included. Defaults to 1024.
	// It is announced, and enforced with EnforceMemory only.
	Memory int
	// EnforceMemory has the kernel kill in an instance that takes more than
	// Memory. It has its own copy of the droplet, on a disk, and pays for the
	// pages of what it reads and writes there; what it writes elsewhere is in
	// memory. Starting fails where MemoryLimits does.
	EnforceMemory bool
	// Disk is how much of it an instance may take, in MB, its droplet included.
	// Defaults to 1024.
	Disk int
	// Instances of the web process. Defaults to 1.
	Instances int
	// Scale is the number of instances of the other process types; they have
	// none by default.
	Scale map[string]int
	// Command replaces the web process' command, as cf push -c.
	Command string
	// HealthCheck of the web process: HealthPort (default), HealthHTTP,
	// HealthProcess. Other processes have HealthProcess.
	HealthCheck string
	// HealthPath is the path of HealthHTTP. Defaults to "/".
	HealthPath string
	// HealthTimeout is how long an instance may take to pass its health check
	// for the first time. Defaults to 60 s.
	HealthTimeout time.Duration
	// ReadinessCheck of the web process takes it off its routes while it fails:
	// HealthPort, HealthHTTP, or HealthProcess (default), which never does.
	ReadinessCheck string
	// ReadinessPath is the path of HealthHTTP. Defaults to "/".
	ReadinessPath string
	// Sidecars are the user's own, beside those from buildpacks.
	Sidecars []Sidecar
	// Routes are host names for the router. Defaults to Name.
	Routes []string
	// InternalRoute is NAME of NAME.apps.internal. Defaults to Name; "-" is
	// none.
	InternalRoute string
	// TCPRoutes are ports of the platform's TCP router.
	TCPRoutes []TCPRoute
	// Volumes are bound to the app, and stand in VCAP_SERVICES beside what
	// VcapServices has.
	Volumes []Volume
	// Organization and Space default to "org" and "space".
	Organization, Space string
	// Stack is CF_STACK at staging. Defaults to cflinuxfs4.
	Stack string
	// Isolated stages the app in a container with no network but loopback, as
	// where no security group allows staging anything.
	Isolated bool
}

// Buildpack is a directory with bin/ at its top or one level down, or a git
// repository with that in it.
type Buildpack struct {
	// Name is the key by which the platform knows it: a name or a URL. The
	// build cache belongs to it.
	Name string
	// Dir is empty where Name is the URL of a repository, with #BRANCH or #TAG:
	// staging clones it.
	Dir string
}

// Sidecar is a process that runs beside the processes of some types.
type Sidecar struct {
	Name         string   `json:"name"`
	Command      string   `json:"command"`
	ProcessTypes []string `json:"process_types"`
	// Memory in MB, taken off the process' own. 0 reserves nothing.
	Memory int `json:"memory,omitempty"`
}

// Result is what staging found out.
type Result struct {
	// ProcessTypes maps a process type to its command.
	ProcessTypes map[string]string
	// Sidecars come from the buildpacks' launch.yml.
	Sidecars []Sidecar
	// Buildpacks in order.
	Buildpacks []BuildpackMetadata
}

// BuildpackMetadata is what a buildpack says of itself in its config.yml.
type BuildpackMetadata struct {
	Key     string `json:"key"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// Droplet is a staged app.
type Droplet struct {
	// Dir has app, deps, profile.d, tmp, logs and staging_info.yml. Instances
	// see it, unchangeable, under their own changes: do not modify it.
	Dir string
	Result
	// Log is everything printed while staging.
	Log string
}
