// Package render turns a checked mesh.hcl into the files of the droplet. Its
// functions are pure: the same Mesh gives the same bytes, without a look at
// the file system, the clock or the environment.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// File is one file of the droplet.
type File struct {
	Path    string // from deps/IDX, such as "profile.d/mesh.sh"
	Content []byte
}

// Files renders everything that mesh becomes, in a fixed order. depsIndex is
// the name of the buildpack's folder below $DEPS_DIR, such as "0" or "03".
func Files(mesh *meshfile.Mesh, depsIndex string) ([]File, error) {
	launch, err := launchYML(mesh, depsIndex)
	if err != nil {
		return nil, err
	}
	services, err := serviceDefinitions(mesh)
	if err != nil {
		return nil, err
	}
	config, err := config(mesh)
	if err != nil {
		return nil, err
	}
	files := []File{
		{droplet.LaunchFile, launch},
		{droplet.ProfileFile, profileScript(mesh, depsIndex)},
	}
	documents := []document{{droplet.ServiceFile, services}, {droplet.ConfigFile, config}}
	if !mesh.Agentless() {
		agent, err := agentConfig(mesh)
		if err != nil {
			return nil, err
		}
		documents = slices.Insert(documents, 0, document{droplet.AgentFile, agent})
	}
	for _, document := range documents {
		text, err := encode(document.content)
		if err != nil {
			return nil, fmt.Errorf("failed to render %s: %w", document.path, err)
		}
		files = append(files, File{document.path, text})
	}
	return files, nil
}

// document is a file of JSON.
type document struct {
	path    string
	content any
}

// config is what the runtime needs to know beside Consul's own files.
func config(mesh *meshfile.Mesh) (droplet.Config, error) {
	lifecycle, err := lifecycle(mesh.Lifecycle)
	if err != nil {
		return droplet.Config{}, err
	}
	c := droplet.Config{
		Envoy: droplet.Envoy{
			Concurrency: mesh.Envoy.Concurrency,
			LogLevel:    mesh.Envoy.LogLevel,
			ExtraArgs:   mesh.Envoy.ExtraArgs,
		},
		Lifecycle:      lifecycle,
		SidecarMemory:  mesh.Envoy.Memory,
		ServiceBinding: mesh.ServiceBinding,
	}
	if mesh.Agentless() {
		c.Servers = &droplet.Servers{
			Addresses: mesh.Consul.Addresses, HTTP: mesh.ServerPort("http"), GRPC: mesh.ServerPort("grpc"), NodeMeta: mesh.Consul.NodeMeta,
		}
	} else {
		c.SidecarMemory += mesh.Consul.Memory
	}
	if mesh.App != nil {
		c.Staged = &droplet.Place{
			App: mesh.App["name"], Space: mesh.App["space"], Organization: mesh.App["organization"], Route: mesh.App["route"],
		}
	}
	for i, service := range mesh.Services {
		extensions, err := envoyExtensions(service.Sidecar)
		if err != nil {
			return c, fmt.Errorf("service %s: %w", service.Label, err)
		}
		c.Services = append(c.Services, droplet.Service{
			ID:          service.ID,
			Process:     service.Process,
			FollowsPort: service.FollowsPort(),
			AdminPort:   mesh.AdminPort(i),

			EnvoyExtensions: extensions,
		})
	}
	return c, nil
}

func lifecycle(l *meshfile.Lifecycle) (droplet.Lifecycle, error) {
	rendered := droplet.Lifecycle{HoldApp: l.HoldApp, PortCheck: l.PortCheck}
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{l.StartTimeout, &rendered.StartTimeout}, {l.DrainDelay, &rendered.DrainDelay}, {l.DrainTimeout, &rendered.DrainTimeout}} {
		duration, err := time.ParseDuration(d.text)
		if err != nil {
			return rendered, fmt.Errorf("lifecycle: %w", err)
		}
		*d.to = duration
	}
	return rendered, nil
}

func envoyExtensions(s *meshfile.Sidecar) (all []droplet.EnvoyExtension, err error) {
	for _, e := range s.EnvoyExtensions {
		arguments, err := object(e.Arguments)
		if err != nil {
			return nil, fmt.Errorf("envoy_extension %s: %w", e.Name, err)
		}
		all = append(all, droplet.EnvoyExtension{
			Name: e.Name, Required: e.Required, Arguments: arguments, ConsulVersion: e.ConsulVersion, EnvoyVersion: e.EnvoyVersion,
		})
	}
	return all, nil
}

func encode(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(value)
	return text.Bytes(), err
}
