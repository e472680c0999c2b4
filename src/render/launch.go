package render

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// launch is launch.yml as Cloud Foundry's builder reads it
// (buildpackapplifecycle, buildpackrunner/resources).
type launch struct {
	Processes []process `yaml:"processes"`
}

type process struct {
	Type      string    `yaml:"type"`
	Command   string    `yaml:"command"`
	Limits    limits    `yaml:"limits"`
	Platforms platforms `yaml:"platforms"`
}

type limits struct {
	Memory int `yaml:"memory"` // MB, taken off the app's own memory
}

type platforms struct {
	CloudFoundry cloudFoundry `yaml:"cloudfoundry"`
}

type cloudFoundry struct {
	SidecarFor []string `yaml:"sidecar_for"`
}

func launchYML(mesh *meshfile.Mesh, depsIndex string) []byte {
	types := mesh.Processes()
	sidecar := func(name, subcommand string, memory int) process {
		return process{
			Type:      name,
			Command:   sidecarCommand(depsIndex, subcommand),
			Limits:    limits{memory},
			Platforms: platforms{cloudFoundry{types}},
		}
	}
	processes := []process{}
	if len(types) > 0 && !mesh.Agentless() {
		processes = append(processes, sidecar(droplet.AgentSidecar, "agent", mesh.Consul.Memory))
	}
	if len(types) > 0 {
		processes = append(processes, sidecar(droplet.ProxySidecar, "proxy", mesh.Envoy.Memory))
	}
	text, err := yaml.Marshal(launch{processes})
	if err != nil {
		panic(err) // its types are fixed, and have no methods that could fail
	}
	return text
}

// sidecarCommand is the start command of a sidecar, for the launcher's bash. PATH does
// not have deps/IDX/bin with every last buildpack, DEPS_DIR is always set.
func sidecarCommand(depsIndex, subcommand string) string {
	return fmt.Sprintf(`. "$DEPS_DIR/%s/%s" %s`, depsIndex, droplet.SidecarFile, subcommand)
}

//go:embed sidecar.sh.tmpl
var sidecarText string

var sidecarTemplate = template.Must(template.New("sidecar").Parse(sidecarText))

func sidecarScript(depsIndex string) []byte {
	return execute(sidecarTemplate, map[string]any{"DepsIndex": depsIndex, "Names": strings.Join(droplet.Environment, " | ")})
}

// execute fills in a template of this package.
func execute(t *template.Template, data map[string]any) []byte {
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		panic(err) // the template is part of the program and its data has fixed types
	}
	return text.Bytes()
}

// ProfileHead is how the profile script begins, in every version.
const ProfileHead = "# Made by the Consul mesh buildpack."

//go:embed profile.sh.tmpl
var profileText string

var profileTemplate = template.Must(template.New("profile").Parse(profileText))

func profileScript(mesh *meshfile.Mesh, depsIndex string) []byte {
	return execute(profileTemplate, map[string]any{
		"DepsIndex": depsIndex,
		"Wraps":     mesh.Lifecycle.HoldApp || mesh.ForTask() != nil,
		"Services":  mesh.Services,
		"Upstreams": mesh.Upstreams(),
		"Agent":     sidecarCommand(depsIndex, "agent"),
		"Proxy":     sidecarCommand(depsIndex, "proxy"),
	})
}
