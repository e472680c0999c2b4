package instance

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestJournalPassesWholeLines: a key that stands before or behind the provider is left
// out wherever the program's output is cut into pieces.
func TestJournalPassesWholeLines(t *testing.T) {
	t.Parallel()
	const text = "[WARN] join: access_key_id=\"A SECRET\"  provider=aws secret_access_key=SECRET\nnext\nlast, without an end"
	for cut := range len(text) {
		var out strings.Builder
		j, err := Instance{RunDir: t.TempDir()}.NewJournal(ConsulJournal, &out)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []string{text[:cut], text[cut:]} {
			if n, err := j.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		j.Flush()
		if got, want := out.String(), "[WARN] join: …\nnext\nlast, without an end"; got != want {
			t.Fatalf("cut at %d: got %q", cut, got)
		}
		if kept, err := os.ReadFile(j.Path); err != nil || string(kept) != "[WARN] join: …\n" {
			t.Fatalf("cut at %d: kept %q, %v", cut, kept, err)
		}
	}
}

// TestJournalLeavesOutEndlessLines: nobody can say where a key in one begins.
func TestJournalLeavesOutEndlessLines(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	j, err := Instance{RunDir: t.TempDir()}.NewJournal(ConsulJournal, &out)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", longestLine/2)
	for _, piece := range []string{"before\naccess_key_id=SEC", "RET" + long, long, long, " provider=aws SECRET\nafter\n", "last\n"} {
		if n, err := j.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got, want := out.String(), fmt.Sprintf("before\nmesh: a line of more than %d bytes is left out\nafter\nlast\n", longestLine); got != want {
		t.Errorf("got %.300q", got)
	}
}

// TestForbidCores: also programs that cores are piped to get none.
func TestForbidCores(t *testing.T) {
	var before, now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	if err := ForbidCores(); err != nil {
		t.Fatal(err)
	}
	// Programs that this one starts take over which memory goes into a core.
	if filter, err := exec.Command("cat", "/proc/self/coredump_filter").Output(); err != nil || strings.Trim(string(filter), "0\n") != "" {
		t.Errorf("a core would have %q of the memory, %v", filter, err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &now); err != nil {
		t.Fatal(err)
	}
	if want := min(1, before.Max); now.Cur != want && os.Geteuid() != 0 || os.Geteuid() == 0 && now.Cur != 1 {
		t.Errorf("the limit is %d, was %d of %d", now.Cur, before.Cur, before.Max)
	}
}
