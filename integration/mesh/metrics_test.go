package mesh

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestMetrics is S6: what the proxy counts is what was sent, under Consul's
// labels, and nothing else of Envoy's admin API is shown.
func TestMetrics(t *testing.T) { inBothModes(t, metrics) }

func metrics(t *testing.T, m mode) {
	m.start(t, m.echo(t, "counted", `protocol = "http"`))
	front := write(t, "counting", map[string]string{
		"Procfile": "web: ./echo\n",
		"mesh.hcl": m.meshFile("counting", `upstream "counted" { port = 9001 }`) + `envoy {
  metrics { prometheus = "0.0.0.0:9102" }
}
`,
	})
	caller := m.start(t, front, "counted")
	scraper := m.start(t, m.echo(t, "scraper"))
	if err := shared.Allow(cell.Policy{Source: "scraper", Destination: "counting", Protocol: "tcp", Start: 9102}); err != nil {
		t.Fatal(err)
	}
	get := func(ctx ctx) error {
		_, err := foundation.From(ctx, caller.Instance(0), "http://127.0.0.1:9001/")
		return err
	}
	eventually(t, "the service answers", get)
	const more = 25
	count := regexp.MustCompile(`envoy_cluster_upstream_rq_total\{[^}]*consul_source_service="counting"[^}]*consul_source_datacenter="cf"[^}]*consul_destination_service="counted"[^}]*consul_destination_datacenter="cf"[^}]*\} (\d+)`)
	counted := func() (n int) {
		base := fmt.Sprintf("http://%s:9102", caller.Instance(0).Address())
		text, err := foundation.From(deadline(t), scraper.Instance(0), base+"/metrics")
		if err != nil {
			t.Fatal(err)
		}
		found := count.FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("no such counter in:\n%s", regexp.MustCompile(`(?m)^envoy_cluster_upstream_rq_total.*$`).FindAllString(text, -1))
		}
		if _, err := fmt.Sscan(found[1], &n); err != nil {
			t.Fatal(err)
		}
		if _, err := foundation.From(deadline(t), scraper.Instance(0), base+"/config_dump"); err == nil {
			t.Error("the metrics listener shows the configuration")
		}
		return n
	}
	before := counted()
	for range more {
		if err := get(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	if after := counted(); after != before+more {
		t.Errorf("%d requests were counted, %d sent", after-before, more)
	}
}
