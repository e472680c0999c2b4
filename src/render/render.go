// Package render turns a checked mesh.hcl into the files of the droplet. Its
// functions are pure: the same Mesh gives the same bytes, without a look at
// the file system, the clock or the environment.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"

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
	files := []File{
		{droplet.LaunchFile, launch},
		{droplet.ProfileFile, profileScript(mesh, depsIndex)},
	}
	for _, document := range []struct {
		path    string
		content any
	}{
		{droplet.AgentFile, agentConfig(mesh)},
		{droplet.ServiceFile, serviceDefinitions(mesh)},
		{droplet.ConfigFile, config(mesh)},
	} {
		text, err := encode(document.content)
		if err != nil {
			return nil, fmt.Errorf("failed to render %s: %w", document.path, err)
		}
		files = append(files, File{document.path, text})
	}
	return files, nil
}

func config(mesh *meshfile.Mesh) droplet.Config {
	var c droplet.Config
	for i, service := range mesh.Services {
		c.Services = append(c.Services, droplet.Service{
			ID:          service.Name,
			Process:     service.Process,
			FollowsPort: service.Port == 0,
			AdminPort:   meshfile.AdminPort + i,
		})
	}
	return c
}

func encode(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(value)
	return text.Bytes(), err
}
