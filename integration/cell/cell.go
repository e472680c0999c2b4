// Package cell is a local Cloud Foundry cell: it stages apps with buildpacks,
// runs them in containers, and has the platform's network with policies, internal
// routes and routers. It behaves as the platform does towards buildpacks and
// apps, and knows nothing of any particular one.
//
// A program that uses cells calls Main. Limits are announced to apps as on the
// platform; that on processors is never enforced, that on memory where
// the app asks for it (App.EnforceMemory), that on disk always. Health checks go on while an
// instance is running, and kill it; restarts back off. Addresses are IPv4 only.
package cell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

// Options of a cell. The zero value is a cell like the real ones.
type Options struct {
	// Log receives every log line as it comes. Nil: none.
	Log io.Writer
	// StopGrace is the time between SIGTERM and SIGKILL. Defaults to 10 s.
	StopGrace time.Duration
	// StartupInterval is the time between health checks of an instance that
	// starts, and between readiness checks of one that is not ready. Defaults to
	// 2 s.
	StartupInterval time.Duration
	// HealthInterval is the time between health checks of an instance that is
	// running, and between readiness checks of one that is ready. Defaults to
	// 30 s.
	HealthInterval time.Duration
	// RestartDelay is waited before an instance that has crashed four times is
	// started again; until then it is at once. It doubles with every other crash,
	// five times, and crashes are forgotten when an instance was up for ten times
	// as long. Defaults to 30 s.
	RestartDelay time.Duration
	// IdentityLife is how long a container's certificate is valid. A new one is
	// issued half an hour before its end, or an eighth of IdentityLife if that is
	// 4 h or less. Defaults to 24 h.
	IdentityLife time.Duration
	// SystemBuildpacks are asked to detect apps that name no buildpack.
	SystemBuildpacks []Buildpack
	// Lifecycle is the path of the program that plays the platform's lifecycle
	// programs in containers. Defaults to the one that BuildLifecycle built.
	Lifecycle string
	// Builder and Launcher are paths of programs that take the place of the
	// lifecycle's own, such as Cloud Foundry's: static, for they run in containers.
	// They default to CELL_BUILDER and CELL_LAUNCHER in the environment.
	Builder, Launcher string
}

func (o Options) withDefaults() Options {
	o.StopGrace = cmp.Or(o.StopGrace, 10*time.Second)
	o.StartupInterval = cmp.Or(o.StartupInterval, 2*time.Second)
	o.HealthInterval = cmp.Or(o.HealthInterval, 30*time.Second)
	o.RestartDelay = cmp.Or(o.RestartDelay, 30*time.Second)
	o.IdentityLife = cmp.Or(o.IdentityLife, 24*time.Hour)
	o.Lifecycle = cmp.Or(o.Lifecycle, os.Getenv(lifecycleEnv))
	o.Builder = cmp.Or(o.Builder, os.Getenv("CELL_BUILDER"))
	o.Launcher = cmp.Or(o.Launcher, os.Getenv("CELL_LAUNCHER"))
	return o
}

// Cell stages and runs apps.
type Cell struct {
	options   Options
	dir       string // everything the cell writes
	vcap      int    // vcap's user id as the cell sees it
	authority *authority
	network   *network
	dns       *dnsServer
	router    *router
	tcp       *tcpRouter
	journal   *journal
	closing   chan struct{}
	loops     sync.WaitGroup // what keeps instances running

	mu       sync.Mutex
	closed   bool                   // guarded by mu
	guests   map[*Guest]bool        // guarded by mu: whose container runs
	started  map[string]*RunningApp // guarded by mu: by name
	pushed   map[string]int         // guarded by mu: lines logged before an app was pushed, by name
	tasks    map[string]int         // guarded by mu: started so far, by app
	guids    map[string]string      // guarded by mu: of apps, spaces and organizations
	outside  map[string]netip.Addr  // guarded by mu: hosts outside, by name
	rules    rules                  // guarded by mu: the network's
	droplets int                    // guarded by mu: staged so far
}

// New makes a cell. A process can have one at a time, inside Main.
func New(o Options) (*Cell, error) {
	if workDir == "" {
		return nil, errors.New("cells can be made only inside cell.Main")
	}
	o = o.withDefaults()
	nested, err := container.InUserNamespace()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(workDir, "cell")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	c := &Cell{
		options: o, dir: dir, vcap: 2000,
		journal: newJournal(o.Log),
		closing: make(chan struct{}),
		guests:  map[*Guest]bool{},
		started: map[string]*RunningApp{},
		pushed:  map[string]int{},
		tasks:   map[string]int{},
		guids:   map[string]string{},
		outside: map[string]netip.Addr{tcpDomain: outsideAddress},
	}
	if nested {
		c.vcap = 0 // the only user there is
	}
	c.router, c.tcp = newRouter(c), newTCPRouter(c)
	if c.authority, err = identityAuthority(); err != nil {
		return nil, fmt.Errorf("failed to make the identity CA: %w", err)
	}
	if err := c.installSystemCertificates(); err != nil {
		return nil, err
	}
	if err := installLifecycle(o, c.lifecycleDir()); err != nil {
		return nil, err
	}
	if c.network, err = newNetwork(); err != nil {
		return nil, err
	}
	if c.dns, err = startDNS(c.resolve); err != nil {
		return nil, errors.Join(err, c.network.close())
	}
	return c, nil
}

// Close ends every container at once and takes the network down.
func (c *Cell) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	close(c.closing)
	guests := slices.Collect(maps.Keys(c.guests))
	c.mu.Unlock()
	var ending sync.WaitGroup
	for _, g := range guests {
		ending.Go(g.end)
	}
	ending.Wait()
	c.tcp.close()
	c.loops.Wait()
	return errors.Join(c.dns.close(), c.network.close(), os.RemoveAll(c.dir))
}

func (c *Cell) lifecycleDir() string { return filepath.Join(c.dir, "lifecycle") }

// keep remembers a guest until forget, so that Close ends it.
func (c *Cell) keep(g *Guest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("the cell is closed")
	}
	c.guests[g] = true
	return nil
}

func (c *Cell) forget(g *Guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.guests, g)
}

// App is the started app of that name, nil if there is none.
func (c *Cell) App(name string) *RunningApp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started[name]
}

func (c *Cell) apps() []*RunningApp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.started))
}

// guid is what the platform has given the named thing. Until an app is deleted, it
// and what belongs to it keep theirs.
func (c *Cell) guid(kind, name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guidOf(kind, name)
}

// guidOf is called with mu held.
func (c *Cell) guidOf(kind, name string) string {
	key := kind + "/" + name
	if c.guids[key] == "" {
		c.guids[key] = uuid.NewString()
	}
	return c.guids[key]
}

// deleteApp ends what belongs to an app's GUID.
func (c *Cell) deleteApp(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	guid := c.guidOf("app", name)
	maps.DeleteFunc(c.guids, func(key, _ string) bool {
		return key == "app/"+name || key == "version/"+name || strings.HasPrefix(key, "process/"+name+"/")
	})
	return c.enforce(rules{withoutApp(c.rules.allowed, guid), withoutApp(c.rules.cut, guid), c.rules.apart})
}

func (c *Cell) appGUID(app App) string { return c.guid("app", app.Name) }

func (c *Cell) spaceGUID(app App) string { return c.guid("space", app.Organization+"/"+app.Space) }

func (c *Cell) organizationGUID(app App) string { return c.guid("organization", app.Organization) }

// Outside is the address, in the cell's own network namespace, of the network
// that counts as the internet: what this process serves there is reachable from
// containers, which come from another address than their own.
func (c *Cell) Outside() string { return outsideAddress.String() }

// OutsideHost starts a host on the outside network. Apps reach it by its
// address, and by name if that has a dot in it; it cannot reach them. It is
// ended by Kill or with the cell.
func (c *Cell) OutsideHost(ctx context.Context, name string, mounts ...container.Mount) (*Guest, error) {
	address, err := c.network.acquire(firstHost, outsideNet)
	if err != nil {
		return nil, err
	}
	g, err := c.newGuest(ctx, guestSpec{hostname: name, address: address, outside: true, mounts: mounts})
	if err != nil {
		g.end()
		return nil, fmt.Errorf("failed to start host %s: %w", name, err)
	}
	c.mu.Lock()
	c.outside[strings.ToLower(name)] = address
	c.mu.Unlock()
	c.loops.Go(func() {
		<-g.ctr.Done()
		c.mu.Lock()
		delete(c.outside, strings.ToLower(name))
		c.mu.Unlock()
		g.end()
	})
	return g, nil
}

func (c *Cell) outsideHosts(name string) []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.outside[name]; ok && strings.Contains(name, ".") {
		return []netip.Addr{a}
	}
	return nil
}
