package cell

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// stagingMemory is that of the staging container, in MB: the app's own is not
// known to buildpacks.
const stagingMemory = 1024

// StagingError is the error of a staging that a buildpack has failed.
type StagingError struct {
	App string
	// Status is Cloud Foundry's exit status, e.g. 225 when a supply script has
	// failed.
	Status container.ExitStatus
	// Log is everything printed.
	Log string
}

// Error has the end of the log, long enough for one message whichever of standard
// output and standard error came last.
func (e *StagingError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.Log), "\n")
	return fmt.Sprintf("failed to stage app %s: %s\n%s", e.App, e.Status, strings.Join(lines[max(0, len(lines)-30):], "\n"))
}

// CacheDir is the build cache that the app's stagings share: a directory for
// each supplying buildpack, named by the md5 of its name, and "final".
func (c *Cell) CacheDir(app string) string { return filepath.Join(c.dir, "cache", app) }

// Stage turns the app's source into a droplet, in a container that reaches the
// outside unless the app is Isolated. A failure of a buildpack is a
// StagingError.
func (c *Cell) Stage(ctx context.Context, app App) (*Droplet, error) {
	s, err := c.newStaging(app.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("failed to stage app %s: %w", app.Name, err)
	}
	defer os.RemoveAll(s.work)
	if err := c.build(ctx, s); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.droplet.Dir))
	}
	return s.droplet, nil
}

// own gives a tree to vcap.
func (c *Cell) own(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, c.vcap, c.vcap)
	})
}

// build runs the buildpacks and fills in the droplet.
func (c *Cell) build(ctx context.Context, s *staging) error {
	app := s.app
	buildpacks, chosen := app.Buildpacks, len(app.Buildpacks) > 0
	if !chosen {
		buildpacks = c.options.SystemBuildpacks
	}
	if len(buildpacks) == 0 {
		return fmt.Errorf("failed to stage app %s: it names no buildpack and the cell has none", app.Name)
	}
	mounts := s.mounts()
	for _, b := range buildpacks {
		if b.Dir == "" {
			continue // cloned inside
		}
		if err := readable(b); err != nil {
			return fmt.Errorf("failed to stage app %s: %w", app.Name, err)
		}
		mounts = append(mounts, container.Mount{
			Source: b.Dir, Target: fmt.Sprintf("/tmp/buildpacks/%x", md5.Sum([]byte(b.Name))), ReadOnly: true,
		})
	}
	g, err := c.newContainer(ctx, app, guestSpec{hostname: uuid.NewString(), isolated: app.Isolated, mounts: mounts})
	if err != nil {
		return fmt.Errorf("failed to stage app %s: %w", app.Name, err)
	}
	defer g.end()
	return c.runBuilder(ctx, s, g, s.args(buildpacks, chosen))
}

func (c *Cell) runBuilder(ctx context.Context, s *staging, g *Guest, args []string) error {
	app, d := s.app, s.droplet
	env := c.environment(app, "", stagingMemory)
	maps.Copy(env, map[string]string{
		"CF_STACK": app.Stack, "CF_INSTANCE_INTERNAL_IP": g.Address(),
		"CF_INSTANCE_ADDR": "", "CF_INSTANCE_PORT": "", "CF_INSTANCE_PORTS": "[]",
	})
	var printed syncBuffer
	out, errs := c.journal.writer(app.Name, "STG/0", false), c.journal.writer(app.Name, "STG/0", true)
	p, err := g.Exec(ctx, container.Process{
		Path: args[0], Args: args, Env: list(env), Dir: "/home/vcap",
		Stdout: io.MultiWriter(&printed, out), Stderr: io.MultiWriter(&printed, errs),
	})
	if err != nil {
		return fmt.Errorf("failed to stage app %s: %w", app.Name, err)
	}
	status, err := p.Wait(ctx)
	out.flush()
	errs.flush()
	d.Log = printed.String()
	if err != nil {
		return fmt.Errorf("failed to stage app %s: %w", app.Name, err)
	}
	if status.Code != 0 {
		return &StagingError{App: app.Name, Status: status, Log: d.Log}
	}
	result, err := g.ReadFile("/tmp/result.json")
	if err == nil {
		err = s.conclude(c, result)
	}
	if err != nil {
		return fmt.Errorf("failed to stage app %s: %w", app.Name, err)
	}
	return nil
}

// readable finds out early what would otherwise fail inside with a puzzle.
func readable(b Buildpack) error {
	info, err := os.Stat(b.Dir)
	if err != nil {
		return fmt.Errorf("buildpack %s: %w", b.Name, err)
	}
	if info.Mode().Perm()&0o005 != 0o005 {
		return fmt.Errorf("buildpack %s: %s has to be readable by everybody, as vcap runs it", b.Name, b.Dir)
	}
	return nil
}

// newContainer starts a container at an address, and with an identity, of its own.
// The hostname is its GUID.
func (c *Cell) newContainer(ctx context.Context, app App, spec guestSpec) (_ *Guest, err error) {
	if _, err := c.services(app); err != nil {
		return nil, err
	}
	if spec.address, err = c.network.acquire(containers.Addr().Next(), containers); err != nil {
		return nil, err
	}
	identity, err := c.newIdentity(app, spec.hostname, spec.address)
	if err != nil {
		c.network.release(spec.address)
		return nil, err
	}
	spec.mounts = append(spec.mounts, identity.mounts()...)
	g, err := c.newGuest(ctx, spec)
	if err != nil {
		g.end()
		return nil, errors.Join(fmt.Errorf("failed to create a container: %w", err), identity.remove())
	}
	c.loops.Go(func() { identity.keep(g.ctr.Done()) })
	return g, nil
}

// syncBuffer collects what two streams print.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// withDefaults fills in what App documents.
func (a App) withDefaults() App {
	setDefault(&a.VcapServices, "{}")
	setDefault(&a.Memory, 1024)
	setDefault(&a.Disk, 1024)
	setDefault(&a.Instances, 1)
	setDefault(&a.HealthCheck, HealthPort)
	setDefault(&a.HealthPath, "/")
	setDefault(&a.ReadinessCheck, HealthProcess)
	setDefault(&a.ReadinessPath, "/")
	setDefault(&a.HealthTimeout, defaultHealthTimeout)
	setDefault(&a.InternalRoute, a.Name)
	setDefault(&a.Organization, "org")
	setDefault(&a.Space, "space")
	setDefault(&a.Stack, "cflinuxfs4")
	if a.Routes == nil {
		a.Routes = []string{a.Name}
	}
	a.Buildpacks = slices.Clone(a.Buildpacks)
	for i := range a.Buildpacks {
		setDefault(&a.Buildpacks[i].Name, filepath.Base(a.Buildpacks[i].Dir))
	}
	return a
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
