package render

import (
	"fmt"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// BenchmarkParseAndRender shows how the time grows with the file: services
// with five upstreams each, every one a process of its own.
func BenchmarkParseAndRender(b *testing.B) {
	for _, services := range []int{10, 100, 1000} {
		var text strings.Builder
		for i := range services {
			fmt.Fprintf(&text, "service \"s%d\" {\n  process = \"p%d\"\n  port = 8080\n  check \"c\" { http = \"/health\" }\n", i, i)
			for u := range 5 {
				fmt.Fprintf(&text, "  upstream \"u%d\" {}\n", (i*5+u)%900)
			}
			text.WriteString("}\n")
		}
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			for b.Loop() {
				mesh, _, err := meshfile.Parse(meshfile.Name, []byte(text.String()), context)
				if err != nil {
					b.Fatal(err)
				}
				Files(mesh, "0")
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*services), "µs/service")
		})
	}
}
