package instance

import (
	"strings"
	"testing"
)

// TestMemoryProblem reads what both versions of control groups say.
func TestMemoryProblem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"low 0\nmax 8\noom 3\noom_kill 2\n":                 "has killed 2 processes",
		"oom_kill_disable 0\nunder_oom 0\noom_kill 1\n":     "has killed 1 processes",
		"low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\n":        "",
		"oom_kill_disable 1\nunder_oom 1\nnothing of use\n": "",
	} {
		if got := memoryProblem(text); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q means %q, want %q", text, got, want)
		}
	}
}
