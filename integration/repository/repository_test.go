// Package repository holds the tests that keep the repository honest: its
// walls, its versions, and what its documents name.
package repository

import (
	"encoding/json"
	"errors"
	"go/format"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

const (
	root   = "../.."
	module = "github.com/consul-mesh/mesh-buildpack/"
)

// walls says which package may not depend, directly or not, on what. A pattern
// ends in "..." where it means everything below.
var walls = map[string][]string{
	"src/droplet": {"github.com/...", module + "..."},
	// What reads secrets uses nobody else's code.
	"src/credentials": {"github.com/...", "golang.org/...", module + "src/..."},
	"src/meshfile":    {"github.com/cloudfoundry/...", "github.com/hashicorp/go-getter/...", "github.com/hashicorp/consul/...", module + "src/render", module + "src/artifact", module + "src/staging", module + "src/mesh/..."},
	"src/pairs":       {"github.com/...", module + "..."},
	"src/consulfile":  {"github.com/cloudfoundry/...", module + "src/render", module + "src/artifact", module + "src/staging", module + "src/mesh/..."},
	"src/artifact":    {"github.com/cloudfoundry/...", "github.com/hashicorp/hcl/...", module + "src/..."},
	"src/render":      {"github.com/cloudfoundry/...", "github.com/hashicorp/go-getter/...", module + "src/artifact", module + "src/staging", module + "src/mesh/..."},
	"src/staging":     {module + "src/mesh/..."},
	"src/cmd/mesh":    {"github.com/cloudfoundry/...", "github.com/hashicorp/...", module + "src/meshfile", module + "src/artifact", module + "src/render", module + "src/staging"},
	// The cell is Cloud Foundry: it knows nothing of Consul or the buildpack.
	"integration/container": {module + "src/...", "github.com/hashicorp/..."},
	"integration/cell":      {module + "src/...", "github.com/hashicorp/..."},
	"integration/load":      {module + "...", "github.com/hashicorp/..."},
	"integration/droplet":   {module + "...", "github.com/hashicorp/..."},
	// A crowd has no containers.
	"integration/crowd":     {module + "integration/cell", module + "src/staging", "github.com/cloudfoundry/..."},
	"integration/lifecycle": {module + "src/...", "github.com/hashicorp/..."},
}

func TestWalls(t *testing.T) {
	t.Parallel()
	deps := dependencies(t)
	for pkg, forbidden := range walls {
		if deps[module+pkg] == nil {
			t.Errorf("there is no package %s", pkg)
		}
		for _, dep := range deps[module+pkg] {
			for _, pattern := range forbidden {
				if dep != module+pkg && matches(pattern, dep) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
	}
}

// TestOnlyStagingKnowsLibbuildpack: it is kept behind one adapter, platform.go.
func TestOnlyStagingKnowsLibbuildpack(t *testing.T) {
	t.Parallel()
	for _, file := range goFiles(t, "src") {
		text := read(t, file)
		if strings.HasPrefix(file, "src/staging/platform") {
			continue
		}
		if strings.Contains(text, `"github.com/cloudfoundry/libbuildpack"`) || strings.HasPrefix(file, "src/staging/") && strings.Contains(text, ".stager") {
			t.Errorf("%s knows libbuildpack", file)
		}
	}
}

// TestFormatted: every Go file is as gofmt writes it.
func TestFormatted(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"src", "integration", "fixtures"} {
		for _, file := range goFiles(t, folder) {
			text := read(t, file)
			formatted, err := format.Source([]byte(text))
			if err != nil || string(formatted) != text {
				t.Errorf("%s is not formatted: gofmt -w mends it (%v)", file, err)
			}
		}
	}
}

func matches(pattern, path string) bool {
	if prefix, below := strings.CutSuffix(pattern, "..."); below {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}

func dependencies(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Deps", "./src/...", "./integration/...")
	cmd.Dir = root
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := map[string][]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var pkg struct {
			ImportPath string
			Deps       []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return deps
		} else if err != nil {
			t.Fatal(err)
		}
		deps[pkg.ImportPath] = append(pkg.Deps, pkg.ImportPath)
	}
}

func TestChangelogTopIsTheVersion(t *testing.T) {
	t.Parallel()
	version := strings.TrimSpace(read(t, "VERSION"))
	top := regexp.MustCompile(`(?m)^## (\S+)`).FindStringSubmatch(read(t, "CHANGELOG.md"))
	if top == nil || top[1] != version {
		t.Errorf("CHANGELOG.md starts with %q, VERSION is %q", top, version)
	}
}

func TestGoVersionsAgree(t *testing.T) {
	t.Parallel()
	directive := regexp.MustCompile(`(?m)^go (\d+\.\d+)`)
	want := directive.FindStringSubmatch(read(t, "go.mod"))[1]
	for _, file := range []string{"fixtures/consul/go.mod", "fixtures/hotrod/go.mod", "fixtures/audit/go.mod", "src/cmd/package/tools/go.mod"} {
		if got := directive.FindStringSubmatch(read(t, file))[1]; got != want {
			t.Errorf("%s wants Go %s, go.mod Go %s", file, got, want)
		}
	}
}

// TestManifestFiles: every file that goes into a zip is in the repository or
// made by make build.
func TestManifestFiles(t *testing.T) {
	t.Parallel()
	var manifest struct {
		IncludeFiles []string `yaml:"include_files"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "manifest.yml")), &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.IncludeFiles) == 0 {
		t.Fatal("the manifest includes no files")
	}
	for _, file := range manifest.IncludeFiles {
		built := map[string]string{"build/buildpack": "src/cmd/buildpack", "build/mesh": "src/cmd/mesh"}
		if source := built[file]; source != "" {
			file = source
		}
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Errorf("the manifest names %s: %v", file, err)
		}
	}
}

// TestEveryMeshFileParses: those of the fixtures, and those that the documents
// show.
func TestEveryMeshFileParses(t *testing.T) {
	t.Parallel()
	count := 0
	context := meshfile.Context{App: map[string]string{"name": "shop", "space": "dev"}}
	parse := func(where, text string) {
		count++
		if _, _, err := meshfile.Parse(filepath.Base(where)+".hcl", []byte(text), context); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	fixtures, err := filepath.Glob(filepath.Join(root, "fixtures", "*", "*", meshfile.Name))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range fixtures {
		parse(file, read(t, strings.TrimPrefix(file, root+"/")))
	}
	block := regexp.MustCompile("(?s)```hcl\n(.*?)```")
	for _, document := range documents(t) {
		for _, example := range block.FindAllStringSubmatch(read(t, document), -1) {
			if document == "docs/fleet.md" { // what an operator says for all apps
				context.Defaults = defaults(t, example[1])
				example[1] = `service "any" {}`
			}
			parse(document, example[1])
			context.Defaults = nil
		}
	}
	if count < 6 {
		t.Errorf("found only %d files and examples", count)
	}
}

func defaults(t *testing.T, text string) *meshfile.Defaults {
	t.Helper()
	file := filepath.Join(t.TempDir(), meshfile.DefaultsName)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	defaults, err := meshfile.ReadDefaults(file)
	if err != nil {
		t.Fatal(err)
	}
	return defaults
}

// TestLinks: every file that a document links to is there.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, document := range documents(t) {
		for _, found := range link.FindAllStringSubmatch(read(t, document), -1) {
			target := filepath.Join(root, filepath.Dir(document), found[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", document, found[1], err)
			}
		}
	}
}

// TestMakeTargets: every make target that a document names exists.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile")
	for _, document := range documents(t) {
		for _, found := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(read(t, document), -1) {
			if !regexp.MustCompile("(?m)^" + found[1] + ":.* ## ").MatchString(makefile) {
				t.Errorf("%s names make %s, which the Makefile does not have", document, found[1])
			}
		}
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	all := []string{"README.md", "CHANGELOG.md"}
	for _, file := range files {
		all = append(all, strings.TrimPrefix(file, root+"/"))
	}
	return all
}

func goFiles(t *testing.T, below string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(root, below), func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") {
			files = append(files, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files: %v", err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
