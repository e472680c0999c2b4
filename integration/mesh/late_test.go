package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// lateServers stand before the real servers. Of what instances write they can lose the
// answers: the server gets those writes when release says so, long after their
// callers have given them up.
type lateServers struct {
	mutex sync.Mutex
	loses func(entry) bool // guarded by mutex
	late  []*http.Request  // guarded by mutex
}

// entry is what is written to the catalog.
type entry struct {
	Path, Node, Address string
	Service             struct{ ID string }
	Checks              []struct{ CheckID, Status string }
}

// isNode says that a node is registered, and nothing else.
func (w entry) isNode() bool {
	return w.Path == "/v1/catalog/register" && w.Service.ID == "" && len(w.Checks) == 0
}

// says is whether a check is registered with a status.
func (w entry) says(check, status string) bool {
	for _, c := range w.Checks {
		if c.CheckID == check && c.Status == status {
			return true
		}
	}
	return false
}

// lateAPI is the port of the servers' containers where these listen.
const lateAPI = 8082

func newLateServers(t *testing.T, f *foundation.Foundation) *lateServers {
	t.Helper()
	l := &lateServers{loses: func(entry) bool { return false }}
	for _, instance := range f.Servers.Instances() {
		listener, err := instance.Listen(t.Context(), "tcp", fmt.Sprintf("%s:%d", instance.Address(), lateAPI))
		if err != nil {
			t.Fatal(err)
		}
		server := http.Server{Handler: l, ReadHeaderTimeout: time.Minute}
		t.Cleanup(func() { _ = server.Close() })
		go func() { _ = server.Serve(listener) }()
	}
	return l
}

// ServeHTTP implements http.Handler.
func (l *lateServers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	here := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	server := &url.URL{Scheme: "http", Host: here.IP.String() + ":8080"}
	passOn := httputil.NewSingleHostReverseProxy(server)
	passOn.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { // an instance that has asked something else meanwhile
		w.WriteHeader(http.StatusBadGateway)
	}
	if r.Method != http.MethodPut {
		passOn.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	said := entry{Path: r.URL.Path}
	_ = json.Unmarshal(body, &said) // it is no catalog's where it has another shape
	l.mutex.Lock()
	lost := l.loses(said)
	if lost {
		later := r.Clone(context.Background())
		later.URL.Scheme, later.URL.Host, later.RequestURI = server.Scheme, server.Host, ""
		l.late = append(l.late, later)
	}
	l.mutex.Unlock()
	if lost {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	passOn.ServeHTTP(w, r)
}

// lose has the answers lost to writes of a kind, from now on.
func (l *lateServers) lose(kind func(entry) bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.loses = kind
}

// once is of the first of a kind.
func once(kind func(entry) bool) func(entry) bool {
	done := false
	return func(w entry) bool {
		if done || !kind(w) {
			return false
		}
		done = true
		return true
	}
}

// awaitLost waits until some writes have been lost.
func (l *lateServers) awaitLost(t *testing.T, some int) {
	t.Helper()
	eventually(t, "writes are lost", func(context.Context) error {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if len(l.late) < some {
			return fmt.Errorf("%d are", len(l.late))
		}
		return nil
	})
}

// release has the server carry out what was lost, and lose nothing more.
func (l *lateServers) release(t *testing.T) {
	t.Helper()
	l.lose(func(entry) bool { return false })
	l.mutex.Lock()
	late := l.late
	l.late = nil
	l.mutex.Unlock()
	if len(late) == 0 {
		t.Fatal("no write was lost")
	}
	for _, request := range late {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		t.Logf("carried out late: %s: %s %s", request.URL.Path, response.Status, strings.TrimSpace(string(text)))
	}
}

// app is one that asks these.
func (l *lateServers) app(t *testing.T, name string) cell.App {
	t.Helper()
	policy := cell.Policy{Source: name, Destination: foundation.ServersApp, Protocol: "tcp", Start: lateAPI}
	if err := shared.Allow(policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Disallow(policy) })
	return write(t, name, map[string]string{"Procfile": "web: ./echo\n", "mesh.hcl": fmt.Sprintf(`service %q {
  protocol = "http"
  check "health" {
    http     = "/health"
    interval = "1s"
    timeout  = "500ms"
  }
}
consul {
  mode      = "agentless"
  ports {
    http = %d
    grpc = 8081
  }
}
`, name, lateAPI)})
}

// mendedWithin is how long what a late write has done may last: instances look eight
// seconds after one was lost, and siblings as long after a goodbye. It is well below
// the two minutes after which they look anyway.
const mendedWithin = 18 * time.Second

// TestLateWrites: a write that was given up, and is carried out after a newer one,
// does not stay: not where the instance is, not how its checks are, and nothing of
// one that has left.
func TestLateWrites(t *testing.T) {
	servers := newLateServers(t, shared)
	app := servers.app(t, "late")
	droplet := stage(t, app)
	caller := agentless.start(t, agentless.echo(t, "caller-of-late", `upstream "late" { port = 9001 }`), "late")

	t.Run("where it is", func(t *testing.T) {
		servers.lose(once(entry.isNode))
		backend := running(t, agentless.launchDroplet(t, app, droplet))
		waitLog(t, backend, "passing, in rotation")
		served(t, caller, backend)
		servers.release(t)
		eventually(t, "the late write has moved it", func(ctx context.Context) error {
			if endpoints, err := foundation.Endpoints(ctx, caller.Instance(0), "late"); err != nil || endpoints[foundation.SidecarOf(backend.Instance(0))] != "" {
				return fmt.Errorf("%v, %v", endpoints, err)
			}
			return nil
		})
		within(t, mendedWithin, "the caller has it again", callerHas(caller, backend))
	})
	t.Run("how its check is", func(t *testing.T) {
		backend := running(t, agentless.launchDroplet(t, app, droplet))
		served(t, caller, backend)
		servers.lose(once(func(w entry) bool { return w.says("late:health", "critical") }))
		signal(t, backend.Instance(0), "./echo", syscall.SIGSTOP)
		servers.awaitLost(t, 1)
		eventually(t, "callers leave it alone", func(ctx context.Context) error {
			if callerHas(caller, backend)(ctx) == nil {
				return fmt.Errorf("the caller sends it requests")
			}
			return nil
		})
		signal(t, backend.Instance(0), "./echo", syscall.SIGCONT)
		served(t, caller, backend)
		servers.release(t)
		eventually(t, "the late write is seen", func(ctx context.Context) error {
			if callerHas(caller, backend)(ctx) == nil {
				return fmt.Errorf("the caller sends it requests")
			}
			return nil
		})
		within(t, mendedWithin, "the caller has it again", callerHas(caller, backend))
	})
	t.Run("that it has left", func(t *testing.T) {
		two := app
		two.Instances = 2
		backend := running(t, agentless.launchDroplet(t, two, droplet))
		served(t, caller, backend)
		leaving := backend.Instance(1)
		node := leaving.App() + "-" + leaving.GUID()
		// That its check fails, and then that it has a sidecar.
		servers.lose(func(w entry) bool { return w.Path == "/v1/catalog/register" && w.Node == node && !w.isNode() })
		signal(t, leaving, "./echo", syscall.SIGSTOP)
		servers.awaitLost(t, 2)
		signal(t, leaving, "./echo", syscall.SIGCONT)
		scale(t, backend, 1)
		eventually(t, "it has left", notInCatalog(shared, leaving))
		<-time.After(time.Second) // the siblings have looked
		servers.release(t)
		if notInCatalog(shared, leaving)(t.Context()) == nil {
			t.Fatal("nothing has come late")
		}
		within(t, mendedWithin, "it is taken out again", notInCatalog(shared, leaving))
	})
}

// late: where nodes and services have tokens of their own, it is the port of a sidecar
// that an older write takes back.
func (c *closedMesh) late(t *testing.T) {
	t.Parallel()
	const name = "late-closed"
	servers := newLateServers(t, c.Foundation)
	app, binding := c.own(t, name, fmt.Sprintf("consul {\n mode = \"agentless\"\n ports {\n http = %d\n grpc = 8081\n }\n}\n", lateAPI),
		[]string{`protocol = "http"`}, cell.Policy{Source: name, Destination: foundation.SecureApp, Protocol: "tcp", Start: 8081, End: lateAPI})
	for _, key := range []string{"ca", "auto_encrypt", "gossip_key"} { // these have no certificate
		delete(binding, key)
	}
	c.bind(&app, binding)
	servers.lose(once(func(w entry) bool { return w.Service.ID == name+"-sidecar-proxy" }))
	backend := agentless.start(t, app)
	waitLog(t, backend, "passing, in rotation")
	isThere := func(ctx context.Context) error {
		healthy, err := c.Healthy(ctx, name)
		if err == nil && !slices.Equal(healthy, []string{foundation.SidecarOf(backend.Instance(0))}) {
			err = fmt.Errorf("the catalog has it at %v", healthy)
		}
		return err
	}
	if err := isThere(t.Context()); err != nil {
		t.Fatal(err)
	}
	servers.release(t)
	if err := isThere(t.Context()); err == nil {
		t.Fatal("nothing has come late")
	}
	within(t, mendedWithin, "it is there again", isThere)
}

func callerHas(caller, backend *cell.RunningApp) func(context.Context) error {
	return func(ctx context.Context) error {
		endpoints, err := foundation.Endpoints(ctx, caller.Instance(0), backend.App().Name)
		if err == nil && endpoints[foundation.SidecarOf(backend.Instance(0))] != "healthy" {
			err = fmt.Errorf("the caller's Envoy has %v", endpoints)
		}
		return err
	}
}

// TestNodeGoneWhileItStarts: where a node is taken away while its instance starts,
// callers keep the other instances, and the instance gets into rotation.
func TestNodeGoneWhileItStarts(t *testing.T) {
	servers := newLateServers(t, shared)
	app := servers.app(t, "removed")
	app.Command = "sleep 3; exec ./echo" // callers hear of what is registered before it works
	droplet := stage(t, app)
	backend := running(t, agentless.launchDroplet(t, app, droplet))
	caller := agentless.start(t, agentless.echo(t, "caller-of-removed", `upstream "removed" { port = 9001 }`), "removed")
	served(t, caller, backend)
	removed := make(chan error, 1)
	first := backend.Instance(0).GUID()
	isNext := once(func(w entry) bool {
		return w.Service.ID == "removed-sidecar-proxy" && !strings.HasSuffix(w.Node, first)
	})
	servers.lose(func(w entry) bool { // loses nothing, but sees who comes
		if isNext(w) {
			removed <- shared.Consul(context.Background(), http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": w.Node}, nil)
		}
		return false
	})
	if err := backend.Scale(deadline(t), 2); err != nil {
		t.Fatal(err)
	}
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	running(t, backend)
	served(t, caller, backend)
	for _, line := range said(caller, "rejected") {
		t.Errorf("the caller's Envoy has refused what it was told: %v", line)
	}
	if err := nodesOf(t.Context(), backend); err != nil {
		t.Error(err)
	}
}
