package cell

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
	"github.com/consul-mesh/mesh-buildpack/integration/droplet"
)

// staging is one run of a builder, of the cell's or of another that has the flags
// of Cloud Foundry's. The cell's leaves the droplet and the build cache where they
// are needed. Another works on copies and packs both.
type staging struct {
	app       App
	droplet   *Droplet
	source    string // what the buildpacks change
	cache     string // the build cache as the builder sees it
	kept      string // where it is kept between stagings
	work      string // of another builder: has source, cache, and what it packs
	lifecycle string // the directory of the platform's programs
}

// newStaging copies the source to where the buildpacks change it.
func (c *Cell) newStaging(app App) (*staging, error) {
	c.mu.Lock()
	c.droplets++
	number := fmt.Sprint(c.droplets)
	c.mu.Unlock()
	s := &staging{app: app, kept: c.CacheDir(app.Name), lifecycle: c.lifecycleDir()}
	s.droplet = &Droplet{Dir: filepath.Join(c.dir, "droplets", number)}
	s.source, s.cache = filepath.Join(s.droplet.Dir, "app"), s.kept
	dirs := []string{s.droplet.Dir, s.kept}
	if c.options.Builder != "" {
		s.work = filepath.Join(c.dir, "stagings", number)
		s.source, s.cache = filepath.Join(s.work, "app"), filepath.Join(s.work, "cache")
		dirs = append(dirs, s.packed(""), s.unpacked())
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := copySource(app.Dir, s.source); err != nil {
		return nil, err
	}
	if s.work == "" {
		return s, errors.Join(c.own(s.droplet.Dir), os.Lchown(s.kept, c.vcap, c.vcap))
	}
	return s, errors.Join(os.CopyFS(s.cache, os.DirFS(s.kept)), c.own(s.work))
}

// copySource leaves out what cf push does not upload.
func copySource(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("failed to copy the source: %w", err)
	}
	for _, name := range []string{".git", ".gitignore", ".cfignore", ".hg", ".svn", "_darcs", ".DS_Store"} {
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// packed is a file that another builder writes, unpacked what the build cache is
// unpacked into.
func (s *staging) packed(name string) string { return filepath.Join(s.work, "packed", name) }
func (s *staging) unpacked() string          { return filepath.Join(s.work, "unpacked") }

func (s *staging) mounts() []container.Mount {
	mounts := []container.Mount{
		{Source: s.lifecycle, Target: "/tmp/lifecycle", ReadOnly: true},
		{Source: s.source, Target: "/tmp/app"},
		{Source: s.cache, Target: "/tmp/cache"},
		{Target: "/tmp/buildpacks", Tmpfs: true},
	}
	if s.work == "" {
		return append(mounts, container.Mount{Source: s.droplet.Dir, Target: "/tmp/contents"})
	}
	return append(mounts, container.Mount{Source: s.packed(""), Target: "/tmp/packed"})
}

// args are those of the builder. chosen says that the app names its buildpacks.
func (s *staging) args(buildpacks []Buildpack, chosen bool) []string {
	var order []string
	for _, b := range buildpacks {
		order = append(order, b.Name)
	}
	args := []string{
		"/tmp/lifecycle/builder", "-buildDir=/tmp/app", "-buildpacksDir=/tmp/buildpacks",
		"-buildpacksDownloadDir=/tmp/buildpackdownloads", "-buildpackOrder=" + strings.Join(order, ","),
		fmt.Sprintf("-skipDetect=%t", chosen), "-buildArtifactsCacheDir=/tmp/cache", "-outputMetadata=/tmp/result.json",
	}
	if s.work == "" {
		return append(args, "-contentsDir=/tmp/contents")
	}
	return append(args, "-outputDroplet=/tmp/packed/droplet", "-outputBuildArtifactsCache=/tmp/packed/cache")
}

// conclude reads what the builder has found out, and unpacks what it has packed.
func (s *staging) conclude(c *Cell, result []byte) error {
	var found struct {
		Lifecycle struct {
			Buildpacks []BuildpackMetadata `json:"buildpacks"`
		} `json:"lifecycle_metadata"`
		ProcessTypes map[string]string `json:"process_types"`
		Sidecars     []Sidecar         `json:"sidecars"`
	}
	if err := json.Unmarshal(result, &found); err != nil {
		return fmt.Errorf("failed to parse the builder's result: %w", err)
	}
	s.droplet.Result = Result{
		ProcessTypes: found.ProcessTypes, Buildpacks: found.Lifecycle.Buildpacks,
		Sidecars: append([]Sidecar{}, found.Sidecars...),
	}
	if s.work == "" {
		return nil
	}
	return errors.Join(
		droplet.Unpack(s.packed("droplet"), s.droplet.Dir), droplet.Unpack(s.packed("cache"), s.unpacked()),
		c.own(s.droplet.Dir), c.own(s.unpacked()),
		os.RemoveAll(s.kept), os.Rename(s.unpacked(), s.kept),
	)
}
