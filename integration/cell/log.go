package cell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Line is one line that a process, or the cell itself, has logged.
type Line struct {
	Time time.Time
	App  string
	// Label is e.g. APP/PROC/WEB/0, APP/PROC/WEB/SIDECAR/MESH-ENVOY/0,
	// APP/TASK/NAME/0, STG/0 or CELL/0; the number is the instance's index.
	Label string
	Err   bool // from standard error
	Text  string
}

// String is the line as cf logs shows it, with the app's name in front.
func (l Line) String() string {
	stream := "OUT"
	if l.Err {
		stream = "ERR"
	}
	return fmt.Sprintf("%s %s [%s] %s %s", l.Time.Format("15:04:05.000"), l.App, l.Label, stream, l.Text)
}

// journal keeps the lines of all apps.
type journal struct {
	live io.Writer

	mu    sync.Mutex
	lines map[string][]Line // guarded by mu: by app
	more  chan struct{}     // guarded by mu: closed at the next line
}

func newJournal(live io.Writer) *journal {
	if live == nil {
		live = io.Discard
	}
	return &journal{live: live, lines: map[string][]Line{}, more: make(chan struct{})}
}

func (j *journal) add(l Line) {
	l.Time = time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines[l.App] = append(j.lines[l.App], l)
	fmt.Fprintln(j.live, l)
	close(j.more)
	j.more = make(chan struct{})
}

// cell logs an event of the cell's own.
func (j *journal) cell(app string, index int, format string, args ...any) {
	j.add(Line{App: app, Label: fmt.Sprintf("CELL/%d", index), Text: fmt.Sprintf(format, args...)})
}

// of returns an app's lines, and a channel that is closed when there are more.
func (j *journal) of(app string) ([]Line, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines[app]), j.more
}

// wait returns the first line that matches, of those there are after the first
// seen ones and those to come.
func (j *journal) wait(ctx context.Context, app string, seen int, what string, match func(string) bool) (Line, error) {
	for {
		lines, more := j.of(app)
		for _, l := range lines[seen:] {
			if match(l.Text) {
				return l, nil
			}
		}
		seen = len(lines)
		select {
		case <-more:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("app %s has not logged %q: %w\n%s", app, what, ctx.Err(), tail(lines, 20))
		}
	}
}

// tail formats the last n lines.
func tail(lines []Line, n int) string {
	var b strings.Builder
	for _, l := range lines[max(0, len(lines)-n):] {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

// Logs are the lines logged so far for an app, staging included.
func (c *Cell) Logs(app string) []Line {
	lines, _ := c.journal.of(app)
	return lines
}

// Logs are the lines logged so far, those of staging and of former instances
// included, but not those of an app of this name that was deleted before.
func (r *RunningApp) Logs() []Line { return r.cell.Logs(r.app.Name)[r.since:] }

// WaitLog waits for a line that contains text, also one that is there already.
func (r *RunningApp) WaitLog(ctx context.Context, text string) (Line, error) {
	return r.cell.journal.wait(ctx, r.app.Name, r.since, text, func(s string) bool { return strings.Contains(s, text) })
}

// WaitLogMatch is WaitLog with a regular expression.
func (r *RunningApp) WaitLogMatch(ctx context.Context, re *regexp.Regexp) (Line, error) {
	return r.cell.journal.wait(ctx, r.app.Name, r.since, re.String(), re.MatchString)
}

// lineWriter turns what is written into lines of the journal.
type lineWriter struct {
	journal *journal
	line    Line

	mu   sync.Mutex
	rest []byte // guarded by mu: a line that has not ended yet
}

func (j *journal) writer(app, label string, err bool) *lineWriter {
	return &lineWriter{journal: j, line: Line{App: app, Label: label, Err: err}}
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, ended := bytes.Cut(w.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		w.emit(line)
		w.rest = rest
	}
}

// flush ends a last line that has no line break.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.emit(w.rest)
		w.rest = nil
	}
}

func (w *lineWriter) emit(text []byte) {
	l := w.line
	l.Text = strings.TrimSuffix(string(text), "\r")
	w.journal.add(l)
}
