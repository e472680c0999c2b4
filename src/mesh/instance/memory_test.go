package instance

import (
	"strings"
	"testing"
)

// TestThrashing: what is read again and again is told from what was once.
func TestThrashing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		stat, limit string
		want        bool
	}{
		{"cache 1\nworkingset_refault_file 200000\n", "34603008\n", true}, // 33 MB
		{"cache 1\nworkingset_refault_file 20000\n", "34603008\n", false},
		{"cache 1\nworkingset_refault_file 200000\n", "max\n", false},
		{"cache 1\nworkingset_refault_file 69153573\n", "9223372036854771712\n", false}, // no limit
		{"cache 1\n", "34603008\n", false},
	} {
		if got := thrashing(test.stat, test.limit); (got != "") != test.want || test.want && !strings.Contains(got, "into the 33 MB") {
			t.Errorf("%q of %q: got %q", test.stat, test.limit, got)
		}
	}
}

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
