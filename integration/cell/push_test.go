package cell_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

func TestPushedAppAnswersThroughTheRouter(t *testing.T) {
	c := newCell(t, cell.Options{})
	r := push(t, c, app(t, "hello", nil))
	response := httptest.NewRecorder()
	c.Router().ServeHTTP(response, httptest.NewRequest("GET", "http://hello.localhost:1234/", nil))
	if got, want := strings.TrimSpace(response.Body.String()), "0 "+r.Instance(0).GUID(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSeveralCells(t *testing.T) {
	for range 3 {
		c := newCell(t, cell.Options{})
		push(t, c, app(t, "app", nil))
		must(t, c.Close())
	}
}

// BenchmarkStart adds and removes an instance of an app that listens at once;
// ms/run is from the request to the health check passed.
func BenchmarkStart(b *testing.B) {
	c, err := cell.New(cell.Options{StartupInterval: 50 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	r, err := c.Push(ctx, app(b, "app", nil))
	if err != nil {
		b.Fatal(err)
	}
	var running time.Duration
	for b.Loop() {
		if err := errors.Join(r.Scale(ctx, 2), r.WaitRunning(ctx)); err != nil {
			b.Fatal(err)
		}
		running += r.Instance(1).RunningAt().Sub(r.Instance(1).StartedAt())
		if err := r.Scale(ctx, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(running.Milliseconds())/float64(b.N), "ms/run")
}
