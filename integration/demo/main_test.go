package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemo runs the whole of it, in every way that it has.
func TestDemo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "demo")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for name, test := range map[string]struct {
		options []string
		saw     string
	}{
		"as it is":                  {nil, "55 network policies\n"},
		"secure":                    {[]string{"-secure"}, "55 network policies\n"},
		"without agents":            {[]string{"-agentless"}, "7 network policies for it"},
		"without agents and secure": {[]string{"-agentless", "-secure"}, "7 network policies for it"},
	} {
		t.Run(name, func(t *testing.T) {
			output, err := exec.CommandContext(t.Context(), program, test.options...).CombinedOutput()
			if err != nil || !strings.Contains(string(output), test.saw) || !strings.Contains(string(output), "All of it in") {
				t.Errorf("%v, want %q:\n%s", err, test.saw, output)
			}
			t.Logf("%s", output)
		})
	}
}
