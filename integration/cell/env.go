package cell

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

const (
	webProcess = "web"
	appPort    = "8080"
	openFiles  = 16384 // announced in VCAP_APPLICATION
)

// application is VCAP_APPLICATION as the platform hands it to the launcher,
// which adds what belongs to an instance.
type application struct {
	CFAPI            string   `json:"cf_api"`
	Limits           limits   `json:"limits"`
	ApplicationName  string   `json:"application_name"`
	ApplicationURIs  []string `json:"application_uris"`
	Name             string   `json:"name"`
	SpaceName        string   `json:"space_name"`
	SpaceID          string   `json:"space_id"`
	OrganizationID   string   `json:"organization_id"`
	OrganizationName string   `json:"organization_name"`
	URIs             []string `json:"uris"`
	Users            *string  `json:"users"`
	ProcessID        string   `json:"process_id,omitempty"`
	ProcessType      string   `json:"process_type,omitempty"`
	ApplicationID    string   `json:"application_id"`
	Version          string   `json:"version"`
	Application      string   `json:"application_version"`
}

type limits struct {
	FDs  int `json:"fds"`
	Mem  int `json:"mem"`
	Disk int `json:"disk"`
}

// environment is what all of an app's processes have, in any container.
// processType is empty for tasks and staging, memory is in MB.
func (c *Cell) environment(app App, processType string, memory int) map[string]string {
	version := c.guid("version", app.Name)
	a := application{
		CFAPI:           "https://api.localhost",
		Limits:          limits{FDs: openFiles, Mem: memory, Disk: app.Disk},
		ApplicationName: app.Name, Name: app.Name, ApplicationID: c.appGUID(app),
		ApplicationURIs: app.uris(), URIs: app.uris(),
		SpaceName: app.Space, SpaceID: c.spaceGUID(app),
		OrganizationName: app.Organization, OrganizationID: c.organizationGUID(app),
		ProcessType: processType,
		Version:     version, Application: version,
	}
	if processType == webProcess {
		a.ProcessID = a.ApplicationID
	} else if processType != "" {
		a.ProcessID = c.guid("process", app.Name+"/"+processType)
	}
	text, _ := json.Marshal(a) // strings and numbers only
	env := map[string]string{
		"LANG":                "en_US.UTF-8",
		"PATH":                "/usr/local/bin:/usr/bin:/bin",
		"USER":                "vcap",
		"HOME":                "/home/vcap",
		"CF_INSTANCE_IP":      cellAddress.String(),
		"CF_INSTANCE_CERT":    identityDir + "/" + certificateFile,
		"CF_INSTANCE_KEY":     identityDir + "/" + keyFile,
		"CF_SYSTEM_CERT_PATH": systemCertificates,
		"MEMORY_LIMIT":        fmt.Sprintf("%dm", memory),
		"VCAP_APPLICATION":    string(text),
	}
	if app.VcapServices != "-" {
		env["VCAP_SERVICES"], _ = c.services(app) // newContainer has seen that it can be made
	}
	maps.Copy(env, app.Env)
	return env
}

// uris are the names under which the routers know the app.
func (a App) uris() []string {
	uris := []string{}
	for _, route := range a.Routes {
		uris = append(uris, route+".localhost")
	}
	for _, route := range a.TCPRoutes {
		uris = append(uris, fmt.Sprintf("%s:%d", tcpDomain, route.Port))
	}
	return uris
}

// instanceEnvironment adds what belongs to one instance. Its port outside the
// container exists on paper only: the router goes to the container itself.
func instanceEnvironment(env map[string]string, g *Guest, guid string, index int) {
	b := g.address.As4()
	port := 61100 + int(b[3])
	ports, _ := json.Marshal([]map[string]int{{"external": port, "internal": 8080}})
	maps.Copy(env, map[string]string{
		"CF_INSTANCE_GUID":        guid,
		"INSTANCE_GUID":           guid,
		"CF_INSTANCE_INDEX":       fmt.Sprint(index),
		"INSTANCE_INDEX":          fmt.Sprint(index),
		"CF_INSTANCE_INTERNAL_IP": g.Address(),
		"CF_INSTANCE_PORT":        fmt.Sprint(port),
		"CF_INSTANCE_ADDR":        fmt.Sprintf("%s:%d", cellAddress, port),
		"CF_INSTANCE_PORTS":       string(ports),
		"VCAP_APP_HOST":           "0.0.0.0",
		"VCAP_APP_PORT":           appPort,
		"PORT":                    appPort,
	})
}

func list(env map[string]string) []string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		all = append(all, key+"="+env[key])
	}
	return all
}

// launch is a process as the platform starts every one of them.
func launch(command string, env map[string]string) container.Process {
	const launcher = "/tmp/lifecycle/launcher"
	return container.Process{
		Path: launcher,
		Args: []string{launcher, "app", command, ""},
		Dir:  "/home/vcap",
		Env:  list(env),
	}
}
