package install

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// needsFoundation marks, in a block's first line, commands that cannot be run
// here. Only commands of cf may be marked, and those for Consul's servers.
const needsFoundation = "# needs a foundation\n"

var forFoundation = regexp.MustCompile(`^ *(cf |consul |meshctl acl |for |done$)`)

var shell = regexp.MustCompile("(?s)```sh\n(.*?)```")

// commands are the blocks of the operators' documents that can be run here, and those
// that need a foundation.
func commands() (here, foundation []string, err error) {
	for _, document := range []string{"operators.md", "closing.md"} {
		text, err := os.ReadFile(filepath.Join(checkout, "docs", document))
		if err != nil {
			return nil, nil, err
		}
		for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
			if marked, found := strings.CutPrefix(strings.TrimLeft(block[1], " "), needsFoundation); found {
				foundation = append(foundation, marked)
			} else {
				here = append(here, block[1])
			}
		}
	}
	return here, foundation, nil
}

// runDocument runs the commands in the checkout, in their order: the zips that
// the tests stage with are theirs.
func runDocument() error {
	here, _, err := commands()
	if err != nil {
		return err
	}
	goCache, err := command(checkout, "go", "env", "GOCACHE")
	if err != nil {
		return err
	}
	// Downloads for cached zips are not the user's.
	downloads, err := shared.Dir("downloads")
	if err != nil {
		return err
	}
	defer os.RemoveAll(downloads)
	for _, block := range here {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", block)
		cmd.Dir = checkout
		cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+downloads, "GOCACHE="+strings.TrimSpace(goCache))
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, block, output)
		}
	}
	return nil
}

func TestDocument(t *testing.T) {
	here, foundation, err := commands()
	if err != nil {
		t.Fatal(err)
	}
	if len(here) < 4 || len(foundation) == 0 {
		t.Errorf("the documents have %d blocks to run and %d for a foundation", len(here), len(foundation))
	}
	for _, block := range foundation {
		for line := range strings.Lines(block) {
			if strings.TrimSpace(line) != "" && !forFoundation.MatchString(strings.TrimRight(line, "\n")) {
				t.Errorf("a document marks %q as needing a foundation", line)
			}
		}
	}
	// What the commands are said to make.
	for _, name := range []string{
		filepath.Base(zipPath("")), filepath.Base(zipPath("")) + ".sha256", filepath.Base(zipPath("-cached")),
		"mesh_buildpack-cflinuxfs5-v" + version + ".zip",
		"meshctl-linux-amd64", "meshctl-darwin-amd64", "meshctl-darwin-arm64", "meshctl-windows-amd64.exe",
	} {
		if _, err := os.Stat(filepath.Join(checkout, "build", name)); err != nil {
			t.Error(err)
		}
	}
}
