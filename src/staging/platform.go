package staging

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cloudfoundry/libbuildpack"

	"github.com/consul-mesh/mesh-buildpack/src/artifact"
	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// platform is the adapter to libbuildpack: manifest, choice of versions, the
// folders of a staging, and how a buildpack prints. No other file of the
// buildpack but this one imports libbuildpack, or uses the fields of its types.
type platform struct {
	manifest *libbuildpack.Manifest
	stager   *libbuildpack.Stager
	logger   *libbuildpack.Logger
}

// appDir is the app's folder, depDir that of this buildpack in the droplet,
// deps/IDX, and depsIndex is IDX, as Cloud Foundry writes it.
func (p *platform) appDir() string    { return p.stager.BuildDir() }
func (p *platform) depDir() string    { return p.stager.DepDir() }
func (p *platform) depsIndex() string { return p.stager.DepsIdx() }

// step, info and warn print a line for who pushes the app.
func (p *platform) step(format string, args ...any) { p.logger.BeginStep(format, args...) }
func (p *platform) info(format string, args ...any) { p.logger.Info(format, args...) }
func (p *platform) warn(format string, args ...any) { p.logger.Warning(format, args...) }

// checkStack refuses a stack that the manifest does not list.
func (p *platform) checkStack() error {
	if _, err := p.manifest.Version(); err != nil {
		return fmt.Errorf("%w\nhint: the buildpack is not whole; make package writes all of it, VERSION too", err)
	}
	if err := p.stager.CheckBuildpackValid(); err != nil {
		return fmt.Errorf("%w\nhint: the manifest lists the stacks this buildpack runs on; push with one of them (cf push -s)", err)
	}
	return nil
}

// writeConfig tells Cloud Foundry's builder that this buildpack has staged.
func (p *platform) writeConfig() error {
	if err := p.stager.WriteConfigYml(nil); err != nil {
		return fmt.Errorf("failed to write config.yml: %w", err)
	}
	return nil
}

// clearDepDir empties deps/IDX. It keeps config.yml, which is written last and
// only by a good staging.
func (p *platform) clearDepDir() error { return p.stager.ClearDepDir() }

// setLaunchEnvironment lets the launcher find the profile scripts and programs of
// every buildpack.
func (p *platform) setLaunchEnvironment() error {
	if err := p.stager.SetLaunchEnvironment(); err != nil {
		return fmt.Errorf("failed to set up the launch environment: %w", err)
	}
	return nil
}

// isListedTwice says that this buildpack has supplied before in the same staging.
func (p *platform) isListedTwice() bool {
	mine, _ := filepath.Glob(filepath.Join(p.stager.DepsDir(), "*", droplet.ConfigFile)) // the pattern is a good one
	return slices.ContainsFunc(mine, func(path string) bool { return filepath.Dir(path) != p.depDir() })
}

// suppliedBefore names the buildpack that has supplied right before this one, by the
// config.yml that each writes which is based on libbuildpack; empty where there is none.
func (p *platform) suppliedBefore() (name string) {
	files, _ := filepath.Glob(filepath.Join(p.stager.DepsDir(), "*", "config.yml")) // sorted
	for _, file := range files {
		if filepath.Base(filepath.Dir(file)) == p.depsIndex() {
			break
		}
		var config struct{ Name string }
		if new(libbuildpack.YAML).Load(file, &config) == nil {
			name = config.Name
		}
	}
	return name
}

// newPlatform reads the buildpack's manifest and the arguments of bin/supply
// or bin/finalize: BUILD_DIR CACHE_DIR DEPS_DIR DEPS_IDX [PROFILE_DIR].
func newPlatform(buildpackDir string, args []string, out io.Writer) (p *platform, err error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("got %d arguments, want BUILD_DIR CACHE_DIR DEPS_DIR DEPS_IDX\n"+
			"hint: Cloud Foundry runs this script; with a platform that gives fewer arguments several buildpacks are not supported", len(args))
	}
	defer func() {
		// NewStager panics where a Cloud Native buildpack ran before.
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%v", cause)
		}
	}()
	log := libbuildpack.NewLogger(out)
	manifest, err := libbuildpack.NewManifest(buildpackDir, log, time.Now())
	if err != nil {
		return nil, fmt.Errorf("failed to read the buildpack's manifest.yml: %w", err)
	}
	if err := applyOverrides(manifest, args[2], log); err != nil {
		return nil, err
	}
	resolveAnyStack(manifest.ManifestEntries)
	return &platform{manifest, libbuildpack.NewStager(args, log, manifest), log}, nil
}

// applyOverrides lays the override.yml of earlier buildpacks over the
// manifest. libbuildpack's own ApplyOverride keeps an entry that exists.
func applyOverrides(manifest *libbuildpack.Manifest, depsDir string, log *libbuildpack.Logger) error {
	files, err := filepath.Glob(filepath.Join(depsDir, "*", "override.yml"))
	if err != nil {
		return fmt.Errorf("failed to look for override.yml: %w", err)
	}
	for _, file := range files {
		var overrides map[string]libbuildpack.Manifest
		if err := new(libbuildpack.YAML).Load(file, &overrides); err != nil {
			return fmt.Errorf("failed to read %s: %w", file, err)
		}
		override := overrides[manifest.Language()]
		for _, version := range override.DefaultVersions {
			replace(&manifest.DefaultVersions, version, func(d libbuildpack.Dependency) bool {
				return d.Name == version.Name
			})
		}
		for _, entry := range override.ManifestEntries {
			if len(entry.CFStacks) == 0 {
				log.Warning("%s: %s %s has no cf_stacks, so it is for no stack\nhint: add cf_stacks: [%s]", file, entry.Dependency.Name, entry.Dependency.Version, os.Getenv("CF_STACK"))
			}
			replace(&manifest.ManifestEntries, entry, func(e libbuildpack.ManifestEntry) bool {
				return e.Dependency == entry.Dependency
			})
		}
	}
	return nil
}

// resolveAnyStack lets an entry for any_stack be for this one: libbuildpack
// compares stacks literally.
func resolveAnyStack(entries []libbuildpack.ManifestEntry) {
	for i := range entries {
		if slices.Contains(entries[i].CFStacks, "any_stack") {
			entries[i].CFStacks = append(entries[i].CFStacks, os.Getenv("CF_STACK"))
		}
	}
}

// replace puts an item in the place of the first that matches, or at the end.
func replace[T any](list *[]T, item T, matches func(T) bool) {
	for i := range *list {
		if matches((*list)[i]) {
			(*list)[i] = item
			return
		}
	}
	*list = append(*list, item)
}

// choose finds the artifact of a program by a version or constraint, by the
// manifest's default where it is empty.
func (p *platform) choose(name, constraint string) (artifact.Artifact, error) {
	versions := slices.Sorted(slices.Values(p.manifest.AllDependencyVersions(name)))
	if len(versions) == 0 {
		return artifact.Artifact{}, fmt.Errorf("no %s in the buildpack for the stack %q\n"+
			"hint: the manifest lists the stacks of every version; push with one of them (cf push -s)", name, os.Getenv("CF_STACK"))
	}
	if constraint == "" {
		version, err := p.manifest.DefaultVersion(name)
		if err != nil {
			return artifact.Artifact{}, fmt.Errorf("failed to find the default version of %s: %w", name, err)
		}
		constraint = version.Version
	}
	version, err := libbuildpack.FindMatchingVersion(constraint, versions)
	if err != nil {
		return artifact.Artifact{}, fmt.Errorf("no %s matches version %q\nhint: this buildpack has %q", name, constraint, versions)
	}
	entry, err := p.manifest.GetEntry(libbuildpack.Dependency{Name: name, Version: version})
	if err != nil {
		return artifact.Artifact{}, fmt.Errorf("failed to find %s %s in the manifest: %w", name, version, err)
	}
	uri := entry.URI
	if p.manifest.IsCached() && entry.File != "" {
		uri = entry.File
		if !filepath.IsAbs(uri) {
			uri = filepath.Join(p.manifest.RootDir(), uri)
		}
		if _, err := os.Stat(uri); err != nil {
			return artifact.Artifact{}, fmt.Errorf("the buildpack lacks its file of %s %s: %w\nhint: the zip is not whole; make package CACHED=1 makes it", name, version, err)
		}
	}
	if entry.SHA256 == "" {
		return artifact.Artifact{}, fmt.Errorf("the manifest has no checksum for %s %s: it will not be run", name, version)
	}
	return artifact.Artifact{Name: name, Version: version, URI: uri, SHA256: entry.SHA256}, nil
}

// offers says whether the manifest has a version that matches a constraint.
func (p *platform) offers(name, constraint string) bool {
	_, err := libbuildpack.FindMatchingVersion(constraint, p.manifest.AllDependencyVersions(name))
	return err == nil
}

// store is this buildpack's own folder in the build cache: as the last
// buildpack it shares the cache with every last buildpack the app ever had.
func (p *platform) store() artifact.Store {
	return artifact.Store{
		Dir: filepath.Join(p.stager.CacheDir(), "mesh"),
		Log: p.info,
	}
}

// writeFile writes a file below deps/IDX or the app, with its folders, or puts
// another in its place. The container's user is to read it, and no more.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	const mode = 0o444
	return errors.Join(os.WriteFile(path, content, mode), os.Chmod(path, mode))
}
