// Package staging is bin/supply and bin/finalize: it reads mesh.hcl, brings in
// the programs, and writes what package render makes of it into the droplet.
// It does not know how a file is rendered or a download verified.
package staging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/artifact"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/pairs"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// appProfile is the profile script's second place, from the app's top: it is
// sourced there whatever the last buildpack does with deps/IDX/profile.d.
const appProfile = ".profile.d/mesh.sh"

// Supply stages the app: buildpackDir is where the buildpack's manifest.yml
// is, args are those of bin/supply, out gets what a person reads. When it
// fails, nothing of it is left in the droplet.
func Supply(ctx context.Context, buildpackDir string, args []string, out io.Writer) (err error) {
	p, err := newPlatform(buildpackDir, args, out)
	if err != nil {
		return err
	}
	if index := p.depsIndex(); len(index) > 1 && strings.HasPrefix(index, "0") {
		return errors.New("of ten and more buildpacks Cloud Foundry does not read the launch.yml of the first ten: the app would have no sidecars\n" +
			"hint: name fewer than ten buildpacks, or this one in the eleventh place or later")
	}
	if err := p.checkStack(); err != nil {
		return err
	}
	context := meshfile.NewContext(os.Environ())
	context.Staging = true
	if context.Defaults, err = meshfile.ReadDefaults(filepath.Join(buildpackDir, meshfile.DefaultsName)); err != nil {
		return err
	}
	mesh, warnings, err := meshfile.Load(p.appDir(), context)
	if err != nil {
		return err
	}
	if warnings != nil {
		p.warn("%s", warnings)
	}
	artifacts, err := p.chooseAll(mesh)
	if err != nil {
		return err
	}
	if err := p.checkProfile(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.clear())
		}
	}()
	if err := p.install(ctx, buildpackDir, artifacts); err != nil {
		return err
	}
	if err := p.write(render.Files(mesh, p.depsIndex())); err != nil {
		return err
	}
	if err := p.tryPrograms(ctx, mesh); err != nil {
		return err
	}
	p.report(mesh)
	return nil
}

// Finalize makes the app start where this is the last buildpack: the launcher
// then finds the profile scripts and programs of every buildpack. It says that
// another should be the last.
func Finalize(_ context.Context, buildpackDir string, args []string, out io.Writer) error {
	p, err := newPlatform(buildpackDir, args, out)
	if err != nil {
		return err
	}
	p.warn("%s", namedLast(p.suppliedBefore()))
	return p.setLaunchEnvironment()
}

// namedLast says what to do where this buildpack is the last one. other is the name
// of the one before it, empty where it is not known. The app may start all the same,
// with a Procfile or cf push -c.
func namedLast(other string) string {
	order := "name the app's own buildpack after mesh_buildpack"
	if other != "" {
		order = fmt.Sprintf("name mesh_buildpack before %s_buildpack", other)
	}
	return "the mesh buildpack is the last one, and Cloud Foundry takes the start command from the last one, which has to finish its own staging too.\n" +
		"This one has no start command: the app needs a Procfile or cf push -c then.\n" +
		"hint: " + order
}

// checkProfile looks at what is where the app's profile script will be. A file that
// this buildpack has not made is neither written over nor removed; one of an earlier
// staging of the same folder is.
func (p *platform) checkProfile() error {
	if p.isListedTwice() {
		return errors.New("this buildpack is listed twice\nhint: name it once, in the app's manifest or with cf push -b")
	}
	path := filepath.Join(p.appDir(), appProfile)
	if info, err := os.Stat(filepath.Dir(path)); err == nil && !info.IsDir() {
		return fmt.Errorf("the app has a file %s, where the platform looks for a folder of scripts\nhint: rename it", filepath.Dir(appProfile))
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !bytes.HasPrefix(text, []byte(render.ProfileHead)) {
		return fmt.Errorf("the app has a file %s, where this buildpack puts its own\nhint: rename it", appProfile)
	}
	return os.Remove(path) // it may not be written
}

// chooseAll picks Consul, where the app runs an agent, and the Envoy that goes
// with it unless mesh.hcl names one.
func (p *platform) chooseAll(mesh *meshfile.Mesh) ([]artifact.Artifact, error) {
	if mesh.Agentless() {
		envoy, err := p.find("envoy", mesh.Envoy.Version, mesh.Envoy.Source, mesh.Envoy.SHA256)
		if err != nil {
			return nil, fmt.Errorf("%s: envoy: %w", meshfile.Name, err)
		}
		return []artifact.Artifact{envoy}, nil
	}
	consul, err := p.find("consul", mesh.Consul.Version, mesh.Consul.Source, mesh.Consul.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%s: consul: %w", meshfile.Name, err)
	}
	version := mesh.Envoy.Version
	if version == "" && mesh.Envoy.Source == "" {
		version = pairs.EnvoyFor(consul.Version)
		if !p.offers("envoy", version) {
			version = "" // a manifest of the platform's own has another default
		}
	}
	envoy, err := p.find("envoy", version, mesh.Envoy.Source, mesh.Envoy.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%s: envoy: %w", meshfile.Name, err)
	}
	known := mesh.Consul.Source == "" && mesh.Envoy.Source == ""
	if warning := pairs.Check(consul.Version, envoy.Version); known && warning != "" {
		p.warn("%s", warning)
	}
	return []artifact.Artifact{consul, envoy}, nil
}

// find is choose, unless the file says where the program comes from.
func (p *platform) find(name, version, source, sum string) (artifact.Artifact, error) {
	if source == "" {
		return p.choose(name, version)
	}
	found := artifact.Artifact{Name: name, Version: version, URI: source, SHA256: sum}
	if strings.Contains(source, "://") {
		return found, nil
	}
	app, err := os.OpenRoot(p.appDir())
	if err != nil {
		return found, fmt.Errorf("failed to read the app: %w", err)
	}
	defer app.Close()
	file, inside, archived := strings.Cut(source, "//")
	info, err := app.Stat(file) // follows links, inside the app
	if archived && !filepath.IsLocal(inside) {
		err = fmt.Errorf("%q, after its //, points outside", inside)
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err != nil {
		return found, fmt.Errorf("failed to read the source %s: %w\nhint: it is a file inside the app, and pushed with it", source, err)
	}
	found.URI = filepath.Join(p.appDir(), file)
	if archived {
		found.URI += "//" + inside
	}
	return found, nil
}

// install puts all programs into deps/IDX/bin.
func (p *platform) install(ctx context.Context, buildpackDir string, artifacts []artifact.Artifact) error {
	bin := filepath.Join(p.depDir(), droplet.BinDir)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("failed to make room for the programs: %w", err)
	}
	p.step("Installing the mesh's programs")
	program := artifact.Artifact{Name: "mesh", URI: filepath.Join(buildpackDir, "build", "mesh")}
	if _, err := os.Stat(program.URI); err != nil {
		return fmt.Errorf("failed to read the container program: %w\nhint: run make build in the buildpack's folder", err)
	}
	return p.store().Install(ctx, bin, append(artifacts, program)...)
}

func (p *platform) write(files []render.File) error {
	for _, file := range files {
		if err := writeFile(filepath.Join(p.depDir(), file.Path), file.Content); err != nil {
			return fmt.Errorf("failed to write %s: %w", file.Path, err)
		}
		if file.Path == droplet.ProfileFile {
			if err := writeFile(filepath.Join(p.appDir(), appProfile), file.Content); err != nil {
				return fmt.Errorf("failed to write the app's %s: %w", appProfile, err)
			}
		}
	}
	return p.writeConfig()
}

// clear takes back what a failed staging has written.
func (p *platform) clear() error {
	err := p.clearDepDir()
	if removed := os.Remove(filepath.Join(p.appDir(), appProfile)); !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}

// report says what the app author gets.
func (p *platform) report(mesh *meshfile.Mesh) {
	if mesh.Agentless() {
		p.step("Joining the mesh of %s, without an agent", strings.Join(mesh.Consul.Addresses, ", "))
	} else {
		p.step("Joining the mesh of datacenter %s", mesh.Consul.Datacenter)
	}
	for _, service := range mesh.Services {
		where := "which only calls others"
		switch {
		case service.FollowsPort():
			where = "on 127.0.0.1:PORT"
		case service.Port != 0:
			where = fmt.Sprintf("on 127.0.0.1:%d", service.Port)
		case service.Listens():
			where = "on " + service.Sidecar.LocalSocketPath
		}
		p.info("service %s (%s) %s, run by the process %s", service.Name, service.Protocol, where, service.Process)
		for _, upstream := range service.Upstreams {
			p.info("  upstream %s on %s, in %s_ADDR", upstream.Name, upstream.LocalAddress(), upstream.Variable())
		}
	}
	if task := mesh.ForTask(); task != nil {
		p.info("tasks are %s, without an agent, at the servers of %s", task.Services[0].Name, strings.Join(task.Consul.Addresses, ", "))
	}
	var operators []string
	for _, origin := range mesh.Origins() {
		if origin.File == meshfile.DefaultsName {
			operators = append(operators, origin.Name)
		}
	}
	if len(operators) > 0 {
		p.info("of the operator's %s: %s", meshfile.DefaultsName, strings.Join(operators, ", "))
	}
	if len(mesh.Services) == 0 {
		return // tasks have no sidecars
	}
	p.info("its sidecars take %d MB off the memory of each instance (%s): push with more than %[1]d MB, the platform refuses less without a reason",
		mesh.SidecarMemory(), strings.Join(mesh.Processes(), ", "))
}
