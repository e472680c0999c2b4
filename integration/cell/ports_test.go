package cell_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestPortsOfThePlatform: an app that wants one of them fails as on the platform,
// and they belong to none of its processes.
func TestPortsOfThePlatform(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"Procfile": "web: ./helper\nworker: exec sleep 1000\n"})
	a.Scale = map[string]int{"worker": 1}
	r := push(t, c, a)
	for processType, taken := range map[string][]int{"web": {2222, 61001, 61002, 61443}, "worker": {2222, 61001}} {
		i := r.InstanceOf(processType, 0)
		for _, port := range taken {
			for _, ip := range []string{"0.0.0.0", "127.0.0.1", i.Address()} {
				address := fmt.Sprintf("%s:%d", ip, port)
				out, status, err := i.SSH(timeout(t), "timeout 10 app/helper -addr "+address)
				if err != nil || status.Code == 0 || !strings.Contains(out, "address already in use") {
					t.Errorf("%s binds %s: %s %s %v", processType, address, out, status, err)
				}
				if err := knock(t, i.Guest, address); err != nil {
					t.Errorf("%s at %s: %v", processType, address, err)
				}
			}
		}
		// Nobody is there but init, who listens, and the process.
		if got, err := i.List(); err != nil || len(got) != 2 {
			t.Errorf("%s: got %v %v", processType, got, err)
		}
	}
	// Nobody speaks TLS to a process without a port.
	worker := r.InstanceOf("worker", 0)
	if err := knock(t, worker.Guest, worker.Address()+":61443"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the worker: got %v, want a refused connection", err)
	}
	status, err := r.Task(timeout(t), "timeout 1 ./helper -addr :2222; [ $? -eq 124 ]")
	if err != nil || status.Code != 0 {
		t.Errorf("in a task the port is taken: %s %v", status, err)
	}
}
