// Package render turns a checked mesh.hcl into the files of the droplet. Its
// functions are pure: the same Mesh gives the same bytes, without a look at
// the file system, the clock or the environment.
package render

import (
	"bytes"
	"encoding/json"
	"maps"
	"path"

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
func Files(mesh *meshfile.Mesh, depsIndex string) []File {
	files := []File{
		{droplet.LaunchFile, launchYML(mesh, depsIndex)},
		{droplet.SidecarFile, sidecarScript(depsIndex)},
		{droplet.ProfileFile, profileScript(mesh, depsIndex)},
	}
	if !mesh.Agentless() {
		files = append(files, File{droplet.AgentFile, encode(agentConfig(mesh))})
	}
	files = append(files,
		File{droplet.ServiceFile, encode(serviceDefinitions(mesh))},
		File{droplet.ConfigFile, encode(config(mesh))},
	)
	if task := mesh.ForTask(); task != nil {
		files = append(files,
			File{path.Join(droplet.TaskDir, droplet.ServiceFile), encode(serviceDefinitions(task))},
			File{path.Join(droplet.TaskDir, droplet.ConfigFile), encode(config(task))},
		)
	}
	return files
}

// config is what the runtime needs to know beside Consul's own files.
func config(mesh *meshfile.Mesh) droplet.Config {
	c := droplet.Config{
		Envoy: droplet.Envoy{
			Concurrency: mesh.Envoy.Concurrency,
			LogLevel:    mesh.Envoy.LogLevel,
			ExtraArgs:   mesh.Envoy.ExtraArgs,
		},
		Lifecycle: droplet.Lifecycle{
			HoldApp: mesh.Lifecycle.HoldApp, PortCheck: mesh.Lifecycle.PortCheck,
			StartTimeout: mesh.Lifecycle.StartTimeout.Duration,
			DrainDelay:   mesh.Lifecycle.DrainDelay.Duration,
			DrainTimeout: mesh.Lifecycle.DrainTimeout.Duration,

			LongestDrainDelay: mesh.Lifecycle.LongestDrainDelay, Grace: mesh.Lifecycle.Grace.Duration,
		},
		SidecarMemory:  mesh.SidecarMemory(),
		ServiceBinding: mesh.ServiceBinding,
	}
	if mesh.Agentless() {
		c.Servers = &droplet.Servers{
			Addresses: mesh.Consul.Addresses, HTTP: mesh.Consul.Ports.HTTP, GRPC: mesh.Consul.Ports.GRPC, NodeMeta: mesh.Consul.NodeMeta,
		}
	}
	if task := mesh.AsTask; task != nil {
		c.Task = &droplet.Task{Required: task.Required}
		c.Servers.Fixed = len(task.Addresses) > 0
	}
	if mesh.App != nil {
		c.Staged = &droplet.Place{
			App: mesh.App["name"], Space: mesh.App["space"], Organization: mesh.App["organization"], Route: mesh.App["route"],
		}
	}
	for i, service := range mesh.Services {
		c.Services = append(c.Services, droplet.Service{
			ID:          service.ID,
			Process:     service.Process,
			FollowsPort: service.FollowsPort(),
			ListenCheck: service.ListenCheck && service.Listens() && len(service.Checks) == 0,
			AdminPort:   mesh.AdminPort(i),

			EnvoyExtensions: envoyExtensions(service.Sidecar),
		})
	}
	return c
}

func envoyExtensions(s *meshfile.Sidecar) (all []droplet.EnvoyExtension) {
	for _, e := range s.EnvoyExtensions {
		arguments := map[string]any{}
		maps.Copy(arguments, e.Arguments)
		all = append(all, droplet.EnvoyExtension{
			Name: e.Name, Required: e.Required, Arguments: arguments, ConsulVersion: e.ConsulVersion, EnvoyVersion: e.EnvoyVersion,
		})
	}
	return all
}

// encode is a document as JSON. It has nothing that JSON has not: an opaque
// configuration comes out of JSON itself.
func encode(document any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		panic(err)
	}
	return text.Bytes()
}
