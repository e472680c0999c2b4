package proxy

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes a status as one screen for people.
func (s Status) Print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	verdict := "healthy"
	if !s.Healthy() {
		verdict = "not healthy"
	}
	if s.App != "" {
		row("instance", "%s/%s/%s", s.App, s.Process, s.Index)
	}
	row("verdict", "%s", verdict)
	for _, problem := range s.Problems {
		row("problem", "%s", problem)
	}
	for _, note := range s.Notes {
		row("note", "%s", note)
	}
	for _, step := range s.Stages {
		if step.Done {
			row("stage", "%s (%.3f s)", step.Name, step.Seconds)
		} else {
			row("stage", "%s: waiting for %.1f s %s", step.Name, step.Seconds, step.Seen)
		}
	}
	if s.Agent.Node != "" {
		row("agent", "node %s, leader %s%s", s.Agent.Node, s.Agent.Leader, s.Agent.Seen)
	}
	for _, service := range s.Services {
		service.print(row)
	}
	for _, program := range slices.Sorted(maps.Keys(s.Warnings)) {
		for _, line := range s.Warnings[program] {
			row("log of "+program, "%s", line)
		}
	}
	return table.Flush()
}

func (s ServiceStatus) print(row func(name, format string, args ...any)) {
	row("service", "%s %s", s.ID, s.Seen)
	for _, check := range s.Checks {
		row("  check", "%s: %s", check.Name, check.Status)
	}
	for _, u := range s.Upstreams {
		state := fmt.Sprintf("%d of %d instances passing", u.Passing, u.Instances)
		if u.Unknown != "" {
			state = u.Unknown
		}
		if u.Denied {
			state += ", denied by intentions"
		}
		row("  upstream", "%s on %s: %s", u.Name, u.Address, state)
	}
	if !s.Envoy.Ready {
		row("  envoy", "not ready: %s", s.Envoy.Seen)
		return
	}
	row("  envoy", "ready, %d listeners, %d clusters", len(s.Envoy.Listeners), len(s.Envoy.Clusters))
	if until := s.Envoy.CertificateUntil; until != nil {
		row("  certificate", "until %s", until.UTC().Format(time.RFC3339))
	}
	for _, listener := range s.Envoy.Listeners {
		row("  listener", "%s", listener)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Envoy.Clusters)) {
		row("  cluster", "%s: %d healthy endpoints", name, s.Envoy.Clusters[name])
	}
}

// oneLine keeps a row a row.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
