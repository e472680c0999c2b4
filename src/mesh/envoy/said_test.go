package envoy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
)

// refusedCluster is what Envoy 1.38 prints of a cluster that it refuses.
const refusedCluster = `[warning][main] There is no configured limit
[warning][config] delta config for type.googleapis.com/envoy.config.cluster.v3.Cluster rejected: Error adding/updating cluster(s) local_app: goo.gle/debugonly  ` + `
name: "local_app"
type: STATIC
connect_timeout {
}
load_assignment {
  cluster_name: "local_app"
}
: Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be greater than 0s)
[info][main] all goes on
  not of a warning
[warning][config] DeltaAggregatedResources gRPC config stream to local_agent closed: 7, Permission denied: token lacks permission 'service:write'
`

// journalled is what is kept of a log.
func journalled(t *testing.T, text string) []string {
	t.Helper()
	inst := instance.Instance{RunDir: t.TempDir()}
	j, err := inst.NewJournal(instance.EnvoyJournal("web"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(inst.RunDir, "envoy-web.log")); err != nil {
		t.Fatal(err)
	}
	return inst.JournalOf(instance.EnvoyJournal("web"))
}

// TestReasonBelow: the reason of a refusal stands below the whole of what was refused.
func TestReasonBelow(t *testing.T) {
	t.Parallel()
	lines := journalled(t, refusedCluster)
	const want = "Error adding/updating cluster(s) local_app: \"local_app\": Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be greater than 0s)"
	if got := lastRejection(lines); got != want {
		t.Errorf("the reason is %q", got)
	}
	if text := strings.Join(lines, "\n"); len(lines) != 5 || strings.Contains(text, "cluster_name") || strings.Contains(text, "not of a warning") {
		t.Errorf("kept:\n%s", text)
	}
	bare := strings.Replace(refusedCluster, "Error adding/updating cluster(s) local_app: ", "", 1) // as without an agent
	if got := lastRejection(journalled(t, bare)); !strings.HasPrefix(got, `"local_app": Proto constraint validation failed`) {
		t.Errorf("the reason alone is %q", got)
	}
	if got := withoutDump("error adding listener: 'public_listener' has duplicate address"); got != "error adding listener: 'public_listener' has duplicate address" {
		t.Errorf("a reason of one line is %q", got)
	}
}

// TestClosedStreams: a stream that was refused is said with gRPC's code and message.
func TestClosedStreams(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		said    string
		refused bool
	}{
		"[warning][config] DeltaAggregatedResources gRPC config stream to local_agent closed: 7, Permission denied":                      {"it was closed with gRPC's code 7 (PermissionDenied): Permission denied", true},
		"[warning][config] DeltaAggregatedResources gRPC config stream to consul_servers closed since 31s ago: 14, upstream is gone":     {"it was closed with gRPC's code 14 (Unavailable): upstream is gone", false},
		"[warning][config] DeltaAggregatedResources gRPC config stream closed: 3, Envoy 1.1.0 is too old and is not supported by Consul": {"it was closed with gRPC's code 3 (InvalidArgument): Envoy 1.1.0 is too old and is not supported by Consul", true},
		"[warning][config] gRPC config stream to local_agent closed: 99, x":                                                              {"it was closed with gRPC's code 99 (unknown): x", false},
		"[warning][main] nothing of streams": {},
	} {
		said, refused := lastClosed([]string{"[warning][x] before", line})
		if said != want.said || refused != want.refused {
			t.Errorf("%s\nmeans %q, refused %v", line, said, refused)
		}
	}
}

// unconnected is an Envoy that is live and has no stream.
type unconnected struct{}

func (unconnected) RoundTrip(request *http.Request) (*http.Response, error) {
	text := "LIVE"
	if request.URL.Path != "/ready" {
		text = statConnected + ": 0\n"
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// TestRefusedStream: a stream that the servers go on refusing is not waited for until
// the bound of the start.
func TestRefusedStream(t *testing.T) {
	t.Parallel()
	lines := journalled(t, refusedCluster)
	synctest.Test(t, func(t *testing.T) {
		e := &Envoy{Admin: "http://envoy", Exited: make(chan struct{}), journal: func() []string { return lines }}
		e.HTTP.Transport = unconnected{}
		configured := e.Configured()
		first := configured(t.Context())
		time.Sleep(instance.RefusedPatience + time.Second)
		last := configured(t.Context())
		const want = "it was closed with gRPC's code 7 (PermissionDenied): Permission denied: token lacks permission 'service:write'"
		if first == nil || last == nil || !strings.Contains(last.Error(), want) {
			t.Fatalf("first %v, then %v", first, last)
		}
		if errors.Unwrap(first) != nil || errors.Unwrap(last) == nil {
			t.Errorf("final at once %v, at last %v", errors.Unwrap(first), errors.Unwrap(last))
		}
	})
}
