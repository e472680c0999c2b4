package cell_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// spreadEnv has the path of the tests in testdata/spread.
const spreadEnv = "CELL_TEST_SPREAD"

// TestTestsAreSpread: each test of a package is made once, two at a time, and a
// failure of any is one of all.
func TestTestsAreSpread(t *testing.T) {
	spread := func(fails string, args ...string) (status int, printed string, where []string) {
		t.Helper()
		dir := t.TempDir()
		cmd := exec.Command(os.Getenv(spreadEnv), args...)
		cmd.Env = append(os.Environ(), "SPREAD="+dir, "SPREAD_FAILS="+fails)
		output, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		for _, name := range names(t, dir) {
			namespace, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			where = append(where, string(namespace))
		}
		slices.Sort(where)
		return cmd.ProcessState.ExitCode(), string(output), where
	}
	status, printed, where := spread("")
	if status != 0 || len(where) != 4 || len(slices.Compact(where)) != 2 {
		t.Errorf("status %d, run in %v:\n%s", status, where, printed)
	}
	status, printed, where = spread("yes", "-test.v")
	if status != 1 || len(where) != 4 || !strings.Contains(printed, "this one fails\n--- FAIL: TestFour") || strings.Count(printed, "--- PASS") != 3 {
		t.Errorf("status %d, run in %v:\n%s", status, where, printed)
	}
	status, printed, where = spread("", "-test.run=Three|Four")
	if status != 0 || len(where) != 2 || len(slices.Compact(where)) != 1 {
		t.Errorf("chosen tests: status %d, run in %v:\n%s", status, where, printed)
	}
}
