package main

import (
	"bytes"
	"crypto/md5"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/integration/droplet"
)

// buildConfig says where everything is. All paths are absolute.
type buildConfig struct {
	// BuildDir has the app.
	BuildDir string
	// BuildpacksDir has the buildpacks, each below the md5 of its key.
	BuildpacksDir string
	// DownloadDir is where those are cloned to whose key is a URL.
	DownloadDir string
	// Buildpacks are keys, in order.
	Buildpacks []string
	// Detect: nobody has chosen a buildpack, the first that accepts the app is
	// the only one.
	Detect bool
	// CacheDir is kept between stagings of an app.
	CacheDir string
	// ResultFile is written at the end, see stagingResult.
	ResultFile string
	// Droplet and Cache are files to pack the droplet and CacheDir into.
	Droplet, Cache string
	// ContentsDir becomes the droplet; BuildDir is its directory "app". Nothing is
	// packed then. Cloud Foundry's builder has no such flag.
	ContentsDir string
}

// parseBuild reads the flags, which are those of Cloud Foundry's builder.
func parseBuild(args []string) (c buildConfig, err error) {
	flags := flag.NewFlagSet("builder", flag.ContinueOnError)
	flags.StringVar(&c.BuildDir, "buildDir", "/tmp/app", "the app")
	flags.StringVar(&c.BuildpacksDir, "buildpacksDir", "/tmp/buildpacks", "the buildpacks")
	flags.StringVar(&c.DownloadDir, "buildpacksDownloadDir", "/tmp/buildpackdownloads", "buildpacks that are cloned")
	order := flags.String("buildpackOrder", "", "keys of buildpacks, with commas between them")
	chosen := flags.Bool("skipDetect", false, "run all buildpacks, not the first that accepts the app")
	flags.StringVar(&c.CacheDir, "buildArtifactsCacheDir", "/tmp/cache", "the cache of the last staging")
	flags.StringVar(&c.ResultFile, "outputMetadata", "/tmp/result.json", "what was found out")
	flags.StringVar(&c.Droplet, "outputDroplet", "/tmp/droplet", "the packed droplet")
	flags.StringVar(&c.Cache, "outputBuildArtifactsCache", "/tmp/output-cache", "the packed cache")
	flags.StringVar(&c.ContentsDir, "contentsDir", "", "the droplet as a directory instead, with buildDir in it")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if *order == "" {
		return c, errors.New("missing flag: -buildpackOrder")
	}
	c.Buildpacks, c.Detect = strings.Split(*order, ","), !*chosen
	return c, nil
}

// builder stages an app. The exit codes are Cloud Foundry's.
func builder(args []string) int {
	config, err := parseBuild(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
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

func (b *build) run() (err error) {
	if b.ContentsDir != "" {
		return b.fill()
	}
	if b.ContentsDir, err = os.MkdirTemp("", "contents"); err != nil {
		return fmt.Errorf("%w: %w", setUpFailed, err)
	}
	if err := b.fill(); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(b.ContentsDir, "app"), os.DirFS(b.BuildDir)); err != nil {
		return fmt.Errorf("%w: %w", copyFailed, err)
	}
	return errors.Join(droplet.Pack(b.ContentsDir, b.Droplet), droplet.Pack(b.CacheDir, b.Cache))
}

// fill makes all of the droplet but the app's directory, which the buildpacks have
// changed where it is.
func (b *build) fill() error {
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

// place is where a buildpack is.
func (b *build) place(key string) string {
	if _, isURL := repository(key); isURL {
		return filepath.Join(b.DownloadDir, digest(key))
	}
	return filepath.Join(b.BuildpacksDir, digest(key))
}

// digest names directories of buildpacks.
func digest(key string) string { return fmt.Sprintf("%x", md5.Sum([]byte(key))) }

// prepare makes the directories that buildpacks expect, and drops the caches of
// buildpacks that are no longer used.
func (b *build) prepare() error {
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
	top := b.place(key)
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
