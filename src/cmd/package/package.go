package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cloudfoundry/libbuildpack/packager"
	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/src/artifact"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// programs are what the buildpack itself is made of. make programs built them.
var programs = []string{"build/buildpack", "build/mesh"}

// Files that are made here and are in every zip beside what the manifest
// includes.
const (
	licensesFile = "licenses.txt"
	bomFile      = "sbom.cdx.json"
)

// manifest is what has to be known of manifest.yml here.
type manifest struct {
	Language     string         `yaml:"language"`
	IncludeFiles []string       `yaml:"include_files"`
	Dependencies []dependency   `yaml:"dependencies"`
	Rest         map[string]any `yaml:",inline"`
}

type dependency struct {
	Name    string         `yaml:"name"`
	Version string         `yaml:"version"`
	URI     string         `yaml:"uri"`
	SHA256  string         `yaml:"sha256"`
	Stacks  []string       `yaml:"cf_stacks,flow"`
	Rest    map[string]any `yaml:",inline"`
}

// run makes the zip and the file with its checksum, and returns the zip's
// path.
func (o options) run() (string, error) {
	text, err := os.ReadFile(o.manifest)
	if err != nil {
		return "", fmt.Errorf("failed to read the manifest: %w", err)
	}
	var m manifest
	if err := yaml.Unmarshal(text, &m); err != nil {
		return "", fmt.Errorf("failed to read the manifest %s: %w", o.manifest, err)
	}
	version, err := os.ReadFile(filepath.Join(o.root, "VERSION"))
	if err != nil {
		return "", fmt.Errorf("failed to read the version: %w", err)
	}
	work, err := os.MkdirTemp("", "package-")
	if err != nil {
		return "", fmt.Errorf("failed to make room: %w", err)
	}
	defer os.RemoveAll(work)
	if err := o.lay(work, m, strings.TrimSpace(string(version))); err != nil {
		return "", err
	}
	cache := ""
	if o.cached {
		if cache, err = downloads(m); err != nil {
			return "", err
		}
	}
	made, err := packager.Package(work, cache, strings.TrimSpace(string(version)), o.stack, o.cached)
	if err != nil {
		return "", fmt.Errorf("failed to make the zip: %w\nhint: a zip with CACHED=1 needs every download of %s; "+
			"MANIFEST=FILE names a manifest with other versions or addresses", err, o.manifest)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return "", fmt.Errorf("failed to make room for the zip: %w", err)
	}
	path := filepath.Join(o.out, filepath.Base(made))
	if err := normalise(made, path); err != nil {
		return "", err
	}
	sum, err := artifact.Sum(path)
	if err != nil {
		return "", fmt.Errorf("failed to read the zip: %w", err)
	}
	// In the form that sha256sum -c reads.
	err = os.WriteFile(path+".sha256", []byte(sum+"  "+filepath.Base(path)+"\n"), 0o644)
	if err != nil {
		return "", fmt.Errorf("failed to write the checksum: %w", err)
	}
	return path, nil
}

// lay puts everything that belongs into the zip into a folder: the packager
// would copy the whole repository otherwise.
func (o options) lay(dir string, m manifest, version string) error {
	for _, name := range m.IncludeFiles {
		if err := artifact.Copy(filepath.Join(o.root, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("failed to copy what the manifest includes: %w\nhint: make package builds the programs first", err)
		}
	}
	if o.defaults != "" {
		if err := judgeDefaults(o.defaults); err != nil {
			return err
		}
		if err := artifact.Copy(o.defaults, filepath.Join(dir, meshfile.DefaultsName)); err != nil {
			return fmt.Errorf("failed to copy the defaults: %w", err)
		}
		m.IncludeFiles = append(m.IncludeFiles, meshfile.DefaultsName)
	}
	licenses, err := o.licenses()
	if err != nil {
		return err
	}
	bom, err := o.bom(m, version)
	if err != nil {
		return err
	}
	m.IncludeFiles = append(m.IncludeFiles, licensesFile, bomFile)
	text, err := yaml.Marshal(m)
	if err != nil {
		return fmt.Errorf("failed to write the manifest: %w", err)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, licensesFile), licenses, 0o644),
		os.WriteFile(filepath.Join(dir, bomFile), bom, 0o644),
		os.WriteFile(filepath.Join(dir, "manifest.yml"), text, 0o644),
	)
}

// judgeDefaults says what is wrong with an operator's file, for the smallest app.
func judgeDefaults(path string) error {
	context := meshfile.NewContext(os.Environ())
	context.Staging = true // nothing is known of any app
	var err error
	if context.Defaults, err = meshfile.ReadDefaults(path); err != nil {
		return err
	}
	if context.Defaults == nil {
		return fmt.Errorf("there is no file %s with defaults", path)
	}
	_, _, err = meshfile.Parse(meshfile.Name, []byte(`service "any" {}`), context)
	return err
}

// downloads is where the packager keeps what it has downloaded. It writes
// there in place and never fetches a bad file again: what has no checksum of
// the manifest's is removed first.
func downloads(m manifest) (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("failed to find a cache folder: %w", err)
	}
	dir := filepath.Join(user, "mesh-buildpack-packager")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("failed to make the cache folder: %w", err)
	}
	known := map[string]bool{}
	for _, d := range m.Dependencies {
		known[d.SHA256] = true
	}
	return dir, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		sum, err := artifact.Sum(path)
		if err != nil || known[sum] {
			return err
		}
		return os.Remove(path)
	})
}
