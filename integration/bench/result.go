package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// result is one entry of build/bench.json. Naive, Floor, Plain, Agent and Ratio are
// left out where there is nothing to compare with, Goal and Met where nothing is
// aimed at. Plain is an app without a mesh. Where ours runs no agent, Agent is agent mode in the same run. Ratio
// is ours/naive, or ours/agent.
type result struct {
	Name  string   `json:"name"`
	Unit  string   `json:"unit"`
	Ours  float64  `json:"ours"`
	Naive *float64 `json:"naive,omitempty"`
	Floor *float64 `json:"floor,omitempty"`
	Plain *float64 `json:"plain,omitempty"`
	Agent *float64 `json:"agent,omitempty"`
	Ratio *float64 `json:"ratio,omitempty"`
	Goal  string   `json:"goal,omitempty"`
	Met   *bool    `json:"met,omitempty"`
}

// goal is what ours may be at most. A part that is zero counts for nothing,
// unless none is wanted at all.
type goal struct {
	atMost  float64
	none    bool // exactly 0
	ofNaive float64
	ofFloor float64
	ofAgent float64
}

// against adds what ours is compared with; nil is nothing.
func (r result) against(naive, floor *float64) result {
	r.Naive, r.Floor = naive, floor
	if naive != nil {
		r.Ratio = ratio(r.Ours, *naive)
	}
	return r
}

// beside adds agent mode's to what agentless is.
func (r result) beside(agent float64) result {
	r.Agent, r.Ratio = &agent, ratio(r.Ours, agent)
	return r
}

// agentless is the same measure of apps without agents, beside r.
func (r result) agentless(value float64) result {
	return result{Name: r.Name + "-agentless", Unit: r.Unit, Ours: value}.beside(r.Ours)
}

// ratio is nil where there is nothing to divide by.
func ratio(ours, other float64) *float64 {
	if other <= 0 {
		return nil
	}
	return at(ours / other)
}

// aimedAt judges the result, which has to have what the goal speaks of.
func (r result) aimedAt(g goal) result {
	var says []string
	met := true
	limit := func(most float64, format string, args ...any) {
		says = append(says, "≤ "+fmt.Sprintf(format, args...))
		met = met && r.Ours <= most
	}
	if g.none {
		limit(0, "0")
	}
	if g.atMost > 0 {
		limit(g.atMost, "%g %s", g.atMost, r.Unit)
	}
	if g.ofNaive > 0 && r.Naive != nil {
		limit(g.ofNaive**r.Naive, "%.3g × naive", g.ofNaive)
	}
	if g.ofFloor > 0 && r.Floor != nil {
		limit(g.ofFloor**r.Floor, "%.3g × floor", g.ofFloor)
	}
	if g.ofAgent > 0 && r.Agent != nil {
		limit(g.ofAgent**r.Agent, "%.3g × agent", g.ofAgent)
	}
	if len(says) > 0 {
		r.Goal, r.Met = strings.Join(says, ", "), &met
	}
	return r
}

// missed says which goals are not met; nil: none.
func missed(results []result) error {
	var names []string
	for _, r := range results {
		if r.Met != nil && !*r.Met {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("missed goals: %s", strings.Join(names, ", "))
}

func show(results []result) {
	number := func(n *float64) string {
		if n == nil {
			return ""
		}
		return fmt.Sprintf("%.3g", *n)
	}
	fmt.Printf("\n| %-37s | %-10s | %8s | %8s | %8s | %8s | %8s | %7s | %-30s | %-3s |\n",
		"measure", "unit", "ours", "naive", "floor", "plain", "agent", "ratio", "goal", "met")
	fmt.Println("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |")
	for _, r := range results {
		met := ""
		if r.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*r.Met]
		}
		fmt.Printf("| %-37s | %-10s | %8s | %8s | %8s | %8s | %8s | %7s | %-30s | %-3s |\n",
			r.Name, r.Unit, number(&r.Ours), number(r.Naive), number(r.Floor), number(r.Plain), number(r.Agent), number(r.Ratio), r.Goal, met)
	}
}

func write(dir string, results []result) error {
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("failed to write the results: %w", err)
	}
	fmt.Println("\nwritten to build/bench.json")
	return nil
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

// at is the address of a value, for what may be left out.
func at(value float64) *float64 { return &value }
