// Package spread is a package of tests that share several cells. They are run by
// TestTestsAreSpread.
package spread

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

func TestMain(m *testing.M) {
	cell.MainTests(m, 2, nil, func(tests func() int) int { return tests() })
}

// note says in a file that a test was run, and where.
func note(t *testing.T) {
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(os.Getenv("SPREAD"), t.Name()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fmt.Fprint(file, namespace)
}

// meet waits until another test has been run.
func meet(t *testing.T, other string) {
	note(t)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(os.Getenv("SPREAD"), other)); err == nil {
			return
		}
	}
	t.Error("there is no", other)
}

func TestOne(t *testing.T)   { meet(t, "TestTwo") }
func TestTwo(t *testing.T)   { meet(t, "TestOne") }
func TestThree(t *testing.T) { note(t) }

func TestFour(t *testing.T) {
	note(t)
	if os.Getenv("SPREAD_FAILS") != "" {
		t.Error("this one fails")
	}
}
