package main

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// buildConfig says where everything is. All paths are absolute.
type buildConfig struct {
	// BuildDir has the app.
	BuildDir string `json:"build_dir"`
	// BuildpacksDir has the buildpacks, each below the md5 of its key. Where the
	// key is a URL, the builder clones it there.
	BuildpacksDir string `json:"buildpacks_dir"`
	// Buildpacks are keys, in order.
	Buildpacks []string `json:"buildpacks"`
	// Detect: nobody has chosen a buildpack, the first that accepts the app is
	// the only one.
	Detect bool `json:"detect,omitempty"`
	// CacheDir is kept between stagings of an app.
	CacheDir string `json:"cache_dir"`
	// ContentsDir becomes the droplet. BuildDir is its directory "app".
	ContentsDir string `json:"contents_dir"`
	// ResultFile is written at the end, see stagingResult.
	ResultFile string `json:"result_file"`
}

// builder stages an app: builder CONFIG, which is a buildConfig as JSON. The
// exit codes are Cloud Foundry's.
func builder(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "Usage: builder <config>")
		return 1
	}
	var config buildConfig
	if err := json.Unmarshal([]byte(args[0]), &config); err != nil {
		fmt.Fprintln(os.Stderr, "Invalid config:", err)
		return 1
	}
	if err := (&build{buildConfig: config, stdout: os.Stdout, stderr: os.Stderr}).run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitCode(err)
	}
	return 0
}

type build struct {
	buildConfig
	stdout, stderr io.Writer
}

func (b *build) run() error {
	if err := b.prepare(); err != nil {
		return fmt.Errorf("%w: %w", setUpFailed, err)
	}
	if err := b.clone(); err != nil {
		return err
	}
	last, detected, err := b.supplyOrDetect()
	if err != nil {
		return err
	}
	if err := b.finalize(last); err != nil {
		return fmt.Errorf("%w: %w", compileFailed, err)
	}
	processes, err := b.processes(last)
	if err != nil {
		return err
	}
	return b.conclude(processes, detected)
}

// supplying are all buildpacks but the last.
func (b *build) supplying() []string {
	if b.Detect {
		return nil
	}
	return b.Buildpacks[:len(b.Buildpacks)-1]
}

// depsIndex is the name of the i-th buildpack's directory in deps: padded to the
// same width for all.
func (b *build) depsIndex(i int) string {
	width := len(fmt.Sprint(len(b.supplying()) + 1))
	return fmt.Sprintf("%0*d", width, i)
}

func (b *build) depsDir() string { return filepath.Join(b.ContentsDir, "deps") }

func (b *build) profileDir() string { return filepath.Join(b.ContentsDir, "profile.d") }

func (b *build) cacheOf(key string) string { return filepath.Join(b.CacheDir, digest(key)) }

// lastCache is shared by whatever is the last buildpack.
func (b *build) lastCache() string { return filepath.Join(b.CacheDir, "final") }

// digest names directories of buildpacks.
func digest(key string) string { return fmt.Sprintf("%x", md5.Sum([]byte(key))) }

// prepare makes the directories that buildpacks expect, and drops the caches of
// buildpacks that are no longer used.
func (b *build) prepare() error {
	if len(b.Buildpacks) == 0 {
		return errors.New("there is no buildpack")
	}
	caches := map[string]bool{b.lastCache(): true}
	dirs := []string{b.lastCache(), b.profileDir(), filepath.Join(b.ContentsDir, "tmp"), filepath.Join(b.ContentsDir, "logs")}
	for _, key := range b.supplying() {
		caches[b.cacheOf(key)] = true
		dirs = append(dirs, b.cacheOf(key))
	}
	for i := range len(b.supplying()) + 1 {
		dirs = append(dirs, filepath.Join(b.depsDir(), b.depsIndex(i)))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	kept, err := filepath.Glob(filepath.Join(b.CacheDir, "*"))
	if err != nil {
		return err
	}
	for _, dir := range kept {
		if !caches[dir] {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// supplyOrDetect returns the directory of the buildpack that finalizes, and what
// it said when it was asked to detect.
func (b *build) supplyOrDetect() (dir, detected string, err error) {
	if b.Detect {
		return b.detect()
	}
	dirs := make([]string, len(b.Buildpacks))
	for i, key := range b.Buildpacks {
		if dirs[i], err = b.buildpackDir(key); err != nil {
			fmt.Fprintln(b.stderr, err)
			return "", "", fmt.Errorf("%w: %w", supplyFailed, err)
		}
		if i < len(b.Buildpacks)-1 && !exists(filepath.Join(dirs[i], "bin", "supply")) {
			return "", "", noSupply
		}
	}
	for i, key := range b.supplying() {
		if err := b.script(b.stdout, dirs[i], "supply", b.BuildDir, b.cacheOf(key), b.depsDir(), b.depsIndex(i)); err != nil {
			return "", "", fmt.Errorf("%w: %w", supplyFailed, err)
		}
	}
	return dirs[len(dirs)-1], "", nil
}

func (b *build) detect() (dir, detected string, err error) {
	for _, key := range b.Buildpacks {
		dir, err := b.buildpackDir(key)
		if err != nil {
			fmt.Fprintln(b.stderr, err)
			continue
		}
		var out bytes.Buffer
		if b.script(&out, dir, "detect", b.BuildDir) == nil {
			b.Buildpacks = []string{key}
			return dir, strings.TrimRight(out.String(), "\r\n"), nil
		}
	}
	return "", "", detectFailed
}

func (b *build) finalize(dir string) error {
	index := b.depsIndex(len(b.supplying()))
	if !exists(filepath.Join(dir, "bin", "finalize")) {
		return b.compile(dir, index)
	}
	if exists(filepath.Join(dir, "bin", "supply")) {
		if err := b.script(b.stdout, dir, "supply", b.BuildDir, b.lastCache(), b.depsDir(), index); err != nil {
			return fmt.Errorf("%w: %w", supplyFailed, err)
		}
	}
	if err := b.script(b.stdout, dir, "finalize", b.BuildDir, b.lastCache(), b.depsDir(), index, b.profileDir()); err != nil {
		return fmt.Errorf("%w: %w", finalizeFailed, err)
	}
	return nil
}

// compile is what buildpacks had before there could be more than one.
func (b *build) compile(dir, index string) error {
	if len(b.supplying()) > 0 {
		fmt.Fprintln(b.stderr, missingFinalize)
	}
	if err := os.RemoveAll(filepath.Join(b.depsDir(), index)); err != nil {
		return err
	}
	return b.script(b.stdout, dir, "compile", b.BuildDir, b.lastCache())
}

// buildpackDir has bin/, at the buildpack's top or one level down if there is
// nothing else, as in an archive made by GitHub.
func (b *build) buildpackDir(key string) (string, error) {
	top := filepath.Join(b.BuildpacksDir, digest(key))
	if exists(filepath.Join(top, "bin")) {
		return top, nil
	}
	entries, err := os.ReadDir(top)
	if err != nil {
		return "", failure(fmt.Sprintf("Failed to read buildpack directory '%s' for buildpack '%s'", top, key))
	}
	if len(entries) == 1 {
		if nested := filepath.Join(top, entries[0].Name()); exists(filepath.Join(nested, "bin")) {
			return nested, nil
		}
	}
	return "", fmt.Errorf("malformed buildpack does not contain a /bin dir: %s", key)
}

func (b *build) script(stdout io.Writer, dir, name string, args ...string) error {
	cmd := exec.Command(filepath.Join(dir, "bin", name), args...)
	cmd.Stdout, cmd.Stderr = stdout, b.stderr
	return cmd.Run()
}

func (b *build) procfile() (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(b.BuildDir, "Procfile"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", procfileFailed, err)
	}
	var commands map[string]string
	if yaml.Unmarshal(text, &commands) != nil {
		return nil, fmt.Errorf("%w: invalid YAML", procfileFailed)
	}
	return commands, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
