package repository

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rooms are the packages of the container program, each of which may import those
// above it.
var rooms = []string{"wait", "instance", "consul", "envoy", "agent", "registry", "gate", "proxy"}

// forTests may be imported by tests alone.
const forTests = "meshtest"

// TestRooms: in the container program the packages stand in one order, the one that
// docs/architecture.md shows.
func TestRooms(t *testing.T) {
	t.Parallel()
	const folder = "src/mesh/"
	entries, err := os.ReadDir(filepath.Join(root, folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != forTests && !slices.Contains(rooms, name) {
			t.Errorf("%s%s has no place in the order", folder, name)
		}
	}
	deps := dependencies(t)
	for i, room := range rooms {
		if deps[module+folder+room] == nil {
			t.Errorf("there is no package %s%s", folder, room)
		}
		for _, below := range append(slices.Clone(rooms[i+1:]), forTests) {
			if slices.Contains(deps[module+folder+room], module+folder+below) {
				t.Errorf("%s depends on %s, which stands below it", room, below)
			}
		}
	}
	shown := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(table(t, "| package of `src/mesh` | its job |\n"), -1)
	var documented []string
	for _, row := range shown {
		documented = append(documented, row[1])
	}
	if !slices.Equal(documented, rooms) {
		t.Errorf("docs/architecture.md shows the packages %v, there are %v", documented, rooms)
	}
}

// TestChanges: the files that docs/architecture.md names for changes are there.
func TestChanges(t *testing.T) {
	t.Parallel()
	rows := 0
	for line := range strings.Lines(table(t, "| change | where |\n")) {
		_, where, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		files := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(where, -1)
		if len(files) == 0 {
			continue
		}
		rows++
		for _, file := range files {
			if _, err := os.Stat(filepath.Join(root, file[1])); err != nil {
				t.Errorf("a change is said to be made in %s: %v", file[1], err)
			}
		}
	}
	if rows < 20 {
		t.Errorf("docs/architecture.md has %d changes", rows)
	}
}

// table gives the rows of a table of docs/architecture.md.
func table(t *testing.T, head string) string {
	t.Helper()
	_, rows, _ := strings.Cut(read(t, "docs/architecture.md"), head)
	rows, _, _ = strings.Cut(rows, "\n\n")
	return rows
}

// What fits in a head, in lines.
const (
	longestFile = 400
	longestMain = 50
)

// TestFilesFitInAHead: no file of the product is longer than one can keep in mind, and
// no function main longer than a screen.
func TestFilesFitInAHead(t *testing.T) {
	t.Parallel()
	mains := regexp.MustCompile(`(?ms)^func main\(\) \{$.*?^\}$`)
	for _, file := range goFiles(t, "src") {
		text := read(t, file)
		if lines := strings.Count(text, "\n"); lines > longestFile && !strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s has %d lines", file, lines)
		}
		if lines := strings.Count(mains.FindString(text), "\n"); lines > longestMain {
			t.Errorf("%s has a function main of %d lines", file, lines)
		}
	}
}
