package binaries

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// manifestEntry is a dependency in manifest.yml.
type manifestEntry struct {
	Name    string   `yaml:"name"`
	Version string   `yaml:"version"`
	URI     string   `yaml:"uri"`
	SHA256  string   `yaml:"sha256"`
	Stacks  []string `yaml:"cf_stacks,flow"`
}

func (s Set) manifest() (entries []manifestEntry, rest map[string]any, err error) {
	text, err := os.ReadFile(filepath.Join(s.Root, "manifest.yml"))
	if err != nil {
		return nil, nil, fmt.Errorf("failed to read the manifest: %w", err)
	}
	var document struct {
		Dependencies []manifestEntry `yaml:"dependencies"`
		Rest         map[string]any  `yaml:",inline"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, nil, fmt.Errorf("failed to read the manifest: %w", err)
	}
	return document.Dependencies, document.Rest, nil
}

func (s Set) manifestEntry(name, version string) (manifestEntry, error) {
	entries, _, err := s.manifest()
	if err != nil {
		return manifestEntry{}, err
	}
	for _, entry := range entries {
		if entry.Name == name && entry.Version == version {
			return entry, nil
		}
	}
	return manifestEntry{}, fmt.Errorf("the manifest has no %s %s", name, version)
}

// Mirror serves the downloads as a platform team that hosts them itself would.
func (s Set) Mirror() http.Handler { return http.FileServer(http.Dir(s.releases())) }

// MirrorManifest is the manifest with the mirror at the given base URL and the
// mirror's checksums for the versions that are mirrored. The others keep their
// own address, or are left out where the mirror is all there is.
func (s Set) MirrorManifest(mirror string, mirroredOnly bool) ([]byte, error) {
	entries, rest, err := s.manifest()
	if err != nil {
		return nil, err
	}
	mirrored := map[string]bool{}
	for i, entry := range entries {
		for _, file := range []string{s.ConsulZip(), s.Envoy()} {
			if filepath.Base(entry.URI) != filepath.Base(file) {
				continue
			}
			sum, err := artifact.Sum(file)
			if err != nil {
				return nil, fmt.Errorf("failed to read the mirror: %w", err)
			}
			entries[i].URI, entries[i].SHA256 = mirror+"/"+filepath.Base(file), sum
			mirrored[sum] = true
		}
	}
	if mirroredOnly {
		entries = slices.DeleteFunc(entries, func(entry manifestEntry) bool { return !mirrored[entry.SHA256] })
	}
	rest["dependencies"] = entries
	text, err := yaml.Marshal(rest)
	if err != nil {
		return nil, fmt.Errorf("failed to write the mirrored manifest: %w", err)
	}
	return text, nil
}

// CopyBuildpack makes in dir what a zip of the buildpack has, with a manifest
// that names the mirror at the given base URL.
func (s Set) CopyBuildpack(dir, mirror string) error {
	_, rest, err := s.manifest()
	if err != nil {
		return err
	}
	files, _ := rest["include_files"].([]any)
	for _, file := range files {
		name, _ := file.(string)
		if err := artifact.Copy(filepath.Join(s.Root, name), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("failed to copy the buildpack: %w", err)
		}
	}
	text, err := s.MirrorManifest(mirror, false)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest.yml"), text, 0o644)
}

// CopyApp makes an app in dir: the fixture's files, and programs beside them.
func (s Set) CopyApp(dir, fixture string, programs ...string) error {
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(s.Root, "fixtures", fixture))); err != nil {
		return fmt.Errorf("failed to copy the app %s: %w", fixture, err)
	}
	for _, program := range programs {
		if err := artifact.Copy(program, filepath.Join(dir, filepath.Base(program))); err != nil {
			return fmt.Errorf("failed to copy the app %s: %w", fixture, err)
		}
	}
	return nil
}
