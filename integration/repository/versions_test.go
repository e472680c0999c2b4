package repository

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cloudfoundry/libbuildpack"
	"go.yaml.in/yaml/v3"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

// TestVersionsAgree: what package pairs says is the default is what staging
// chooses from the manifest, what the tests build, and what the documents name.
func TestVersionsAgree(t *testing.T) {
	t.Parallel()
	defaults := map[string]string{"consul": pairs.Consul, "envoy": pairs.Envoy}
	type entry struct{ Name, Version string }
	var manifest struct {
		Defaults     []entry `yaml:"default_versions"`
		Dependencies []entry `yaml:"dependencies"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "manifest.yml")), &manifest); err != nil {
		t.Fatal(err)
	}
	offered := map[string][]string{}
	for _, d := range manifest.Dependencies {
		offered[d.Name] = append(offered[d.Name], d.Version)
	}
	if len(manifest.Defaults) != len(defaults) {
		t.Errorf("the manifest has defaults for %v", manifest.Defaults)
	}
	for _, d := range manifest.Defaults {
		slices.Sort(offered[d.Name])
		if chosen, err := libbuildpack.FindMatchingVersion(d.Version, offered[d.Name]); err != nil || chosen != defaults[d.Name] {
			t.Errorf("the manifest's default %s is %q (%v), that of package pairs %s", d.Name, chosen, err, defaults[d.Name])
		}
	}
	if module := "github.com/hashicorp/consul v" + pairs.Consul + " "; !strings.Contains(read(t, "fixtures/consul/go.mod"), module) {
		t.Errorf("fixtures/consul/go.mod does not require %s", module)
	}
	for name, version := range defaults {
		minor := version[:strings.LastIndex(version, ".")]
		patches := regexp.MustCompile(`\b` + regexp.QuoteMeta(minor) + `\.\d+\b`)
		for _, document := range documents(t) {
			for _, named := range patches.FindAllString(read(t, document), -1) {
				if named != version && document != "CHANGELOG.md" {
					t.Errorf("%s names %s %s, the default is %s", document, name, named, version)
				}
			}
		}
	}
}

// TestVersionsStandOnce: sources and tests take the default versions from package
// pairs. The golden messages, which make golden writes, are the exception.
func TestVersionsStandOnce(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"src", "integration"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
			file := strings.TrimPrefix(path, root+"/")
			if err != nil || entry.IsDir() || filepath.Ext(file) == ".txt" || strings.HasPrefix(file, "src/pairs/") {
				return err
			}
			for _, version := range []string{pairs.Consul, pairs.Envoy} {
				if text := read(t, file); strings.Contains(text, version) {
					t.Errorf("%s names the version %s", file, version)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
