package instance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// journal passes on what Consul or Envoy prints, and keeps the last warnings
// and errors of it in a file, for `mesh status` and for the error of a step
// that does not come true.
type journal struct {
	out  io.Writer
	Path string
	part []byte // of a line that has not ended yet
	cut  bool   // that line was too long, and what comes of it is left out
	kept bool   // the last entry was, so what continues it is too
	dump bool   // that entry shows a message of Envoy's API, and a reason may come after it
}

// JournalLimit is when a file loses its older half, in bytes.
const JournalLimit = 32 << 10

// longestLine is more than Envoy and Consul print in one, in bytes.
const longestLine = 256 << 10

// NewJournal starts the file of one program anew.
func (i Instance) NewJournal(program string, out io.Writer) (*journal, error) {
	j := &journal{out: out, Path: i.JournalPath(program)}
	if err := os.Remove(j.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return j, nil
}

// ConsulJournal and EnvoyJournal name the journals.
const ConsulJournal = "consul"

// EnvoyJournal names the journal of a service's Envoy.
func EnvoyJournal(serviceID string) string { return "envoy-" + serviceID }

const journalSuffix = ".log"

// JournalPath is the file of a program's journal.
func (i Instance) JournalPath(program string) string {
	return filepath.Join(i.RunDir, program+journalSuffix)
}

// Servers may be named by cloud auto-join. Keys may stand there, before and after
// the provider, and Consul says all of it where it finds none.
var (
	quotedAutoJoin = regexp.MustCompile(`"(?:\\.|[^"\\\n])*provider=(?:\\.|[^"\\\n])*"`)
	autoJoin       = regexp.MustCompile(`(?:[\w-]+=[^\n]*)?provider=[^\n]*`)
)

// Write passes on whole lines: what is left out of one may come in two pieces. Of a
// line that is longer than longestLine it passes on nothing but that. That nothing
// could be kept is no reason to lose a log.
func (j *journal) Write(text []byte) (int, error) {
	j.part = append(j.part, text...)
	if end := bytes.IndexByte(j.part, '\n') + 1; j.cut && end > 0 {
		j.part, j.cut = j.part[end:], false
	}
	end := bytes.LastIndexByte(j.part, '\n') + 1
	lines, rest := j.part[:end], bytes.Clone(j.part[end:])
	if len(rest) > longestLine || j.cut {
		if !j.cut {
			lines = fmt.Appendf(lines[:end:end], "mesh: a line of more than %d bytes is left out\n", longestLine)
		}
		rest, j.cut = nil, true
	}
	j.part = rest
	return len(text), j.pass(lines)
}

// Flush passes on a last line that has not ended.
func (j *journal) Flush() {
	rest := j.part
	j.part = nil
	_ = j.pass(rest) // there is nobody to tell
}

// pass passes on lines, and keeps what is worth it.
func (j *journal) pass(lines []byte) error {
	if bytes.Contains(lines, []byte("provider=")) {
		lines = quotedAutoJoin.ReplaceAll(lines, []byte(`"…"`))
		lines = autoJoin.ReplaceAll(lines, []byte("…"))
	}
	for line := range bytes.Lines(lines) {
		line := bytes.TrimSuffix(line, []byte("\n"))
		if j.continued(line) && len(bytes.Trim(line, " |\t")) > 0 { // Consul ends a list of errors with lines that say nothing
			j.keep(append(bytes.Clone(line), '\n'))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := j.out.Write(lines)
	return err
}

// continued says that a line is kept: a warning or an error, a list that Consul shows
// below it, or the reason that Envoy gives (": …") after all of a message that it takes
// offence at.
func (j *journal) continued(line []byte) bool {
	switch {
	case worthKeeping(string(line)):
		j.kept, j.dump = true, false
	case startsEntry.Match(line):
		j.kept = false
	case bytes.HasPrefix(line, []byte("  ")):
		return j.kept && !j.dump
	case !bytes.HasPrefix(line, []byte(": ")):
		named := !j.dump && bytes.HasPrefix(line, []byte("name: ")) // what it takes offence at
		j.dump = true
		return j.kept && named
	}
	return j.kept
}

// startsEntry knows how entries of Envoy's log ("[info][…") and Consul's (a date) begin.
var startsEntry = regexp.MustCompile(`^(\[|\d{4})`)

// worthKeeping knows how Consul ("[WARN]", "[ERROR]") and Envoy ("[warning]",
// "[error]", "[critical]") mark what is wrong.
func worthKeeping(line string) bool {
	for _, mark := range []string{"[WARN]", "[ERROR]", "[warning]", "[error]", "[critical]"} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}

func (j *journal) keep(line []byte) {
	kept, err := os.ReadFile(j.Path)
	if err == nil && len(kept) > JournalLimit {
		kept = kept[len(kept)/2:]
		if _, rest, found := bytes.Cut(kept, []byte("\n")); found {
			kept = rest
		}
		_ = os.WriteFile(j.Path, append(kept, line...), 0o600)
		return
	}
	file, err := os.OpenFile(j.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer file.Close()
	_, _ = file.Write(line)
}

// JournalOf lists what was kept of one program, oldest first.
func (i Instance) JournalOf(program string) []string {
	text, err := os.ReadFile(i.JournalPath(program))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// shownWarnings is how many lines of a journal a status shows.
const shownWarnings = 8

// Warnings are the last lines of every journal.
func (i Instance) Warnings() map[string][]string {
	all := map[string][]string{}
	paths, _ := filepath.Glob(i.JournalPath("*")) // the pattern is a good one
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), journalSuffix)
		if lines := i.JournalOf(name); len(lines) > 0 {
			all[name] = lines[max(0, len(lines)-shownWarnings):]
		}
	}
	return all
}
