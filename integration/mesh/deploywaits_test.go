package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// What the log says of an instance, by the platform, the app and the mesh.
const (
	runs    = "Container became healthy"
	isReady = "Container became ready"
	listens = "the app listens"
	passes  = "passing, in rotation"
)

// rowsOfTheTable are the apps in the table of docs/mesh-hcl.md, with how each of them
// starts, and what comes after what. Those that the table says have no limit take longer
// than the platform gives them.
var rowsOfTheTable = map[string]struct {
	command string
	timeout time.Duration
	log     []string
}{
	"on all addresses": {"sleep 2; echo " + listens + "; exec ./echo", 0, []string{listens, runs}},
	"on all addresses, of use only a while later": {"sleep 2; echo " + listens + "; exec ./echo", 0, []string{listens, runs}},
	"on all addresses, after minutes":             {"sleep 8; echo " + listens + "; exec ./echo", 4 * time.Second, []string{runs, listens, isReady}},
	"on loopback, or on a Unix socket":            {"sleep 2; exec ./echo -bind 127.0.0.1", 0, []string{passes, runs}},
	"the same, after minutes":                     {"sleep 8; exec ./echo -bind 127.0.0.1", 4 * time.Second, []string{runs, passes, isReady}},
	"nowhere: it calls others":                    {"sleep 2; echo " + listens + "; exec sleep 1008", 0, []string{runs, listens}},
}

// TestDeployWaits tries each row of the table on the cell: the platform calls the
// instance what a rolling deployment waits for when the table says, and not before.
func TestDeployWaits(t *testing.T) { inBothModes(t, deployWaits) }

func deployWaits(t *testing.T, m mode) {
	t.Parallel()
	rows := healthChecks(t)
	if len(rows) != len(rowsOfTheTable) {
		t.Errorf("the table has %d rows, %d are tried", len(rows), len(rowsOfTheTable))
	}
	for number, row := range rows {
		test, tried := rowsOfTheTable[row[0]]
		if !tried {
			t.Errorf("nobody tries the row %q", row[0])
			continue
		}
		t.Run(row[0], func(t *testing.T) {
			text := m.meshFile("waits", `check "health" { http = "/health" }`)
			if strings.HasPrefix(row[0], "nowhere") {
				text = m.meshFile("waits", "sidecar { local_service_socket_path = \"/home/vcap/tmp/nobody\" }", "listen_check = false")
			}
			if row[3] == "`true`" {
				text += answersPortCheck
			}
			app := write(t, fmt.Sprintf("waits-%s-%d", m.name, number), map[string]string{"mesh.hcl": text, "Procfile": "web: " + test.command + "\n"})
			app.HealthCheck, app.ReadinessCheck, app.HealthTimeout = strings.Trim(row[1], "`"), strings.Trim(row[2], "`"), test.timeout
			app.HealthPath, app.ReadinessPath = "/health", "/health"
			running := m.launch(t, app)
			if err := running.Instance(0).WaitRoutable(deadline(t)); err != nil {
				t.Fatalf("%v\n%s", err, tail(running))
			}
			for _, said := range test.log {
				waitLog(t, running, said)
			}
			inOrder(t, running, test.log)
		})
	}
}

// inOrder asserts that the log has texts in an order.
func inOrder(t *testing.T, app *cell.RunningApp, texts []string) {
	t.Helper()
	next := 0
	for _, line := range app.Logs() {
		if next < len(texts) && strings.Contains(line.Text, texts[next]) {
			next++
		}
	}
	if next < len(texts) {
		t.Errorf("the log does not have %q in this order:\n%s", texts, tail(app))
	}
}

// healthChecks are the rows of the table in docs/mesh-hcl.md.
func healthChecks(t *testing.T) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shared.Binaries.Root, "docs", "mesh-hcl.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| the app listens | `health-check-type` | `readiness-health-check-type` | `port_check` |")
	if !found {
		t.Fatal("docs/mesh-hcl.md has no such table")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for _, line := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}
