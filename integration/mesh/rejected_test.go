package mesh

import (
	"fmt"
	"testing"
)

// TestRejected: what Envoy does not take of its configuration is said in its words, soon,
// also where they stand below all of what it does not take. The folder of an upstream's
// socket is nobody's to make while the app is held.
func TestRejected(t *testing.T) { inBothModes(t, rejected) }

func rejected(t *testing.T, m mode) {
	name := "rejected-" + m.name
	cluster := `{ "@type" = "type.googleapis.com/envoy.config.cluster.v3.Cluster", name = "local_app", connect_timeout = "0s" }`
	app := m.echo(t, name, fmt.Sprintf("sidecar {\n config = { envoy_local_cluster_json = jsonencode(%s) }\n}", cluster))
	running := m.launch(t, app)
	waitLog(t, running, "mesh: failed: not "+name+": xDS, Envoy knows what to do after ")
	// Both: what it is about, and what is wrong with it.
	waitLog(t, running, "envoy rejects what Consul tells it: \"local_app\": Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be greater than 0s)")

	m.start(t, m.echo(t, "by-socket-"+m.name, `upstream "nobody" { socket = "/tmp/upstream_sockets/nobody.sock" }`))
}
