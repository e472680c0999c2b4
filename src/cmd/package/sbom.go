package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"

	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// ownModule is not a third party.
const ownModule = "github.com/consul-mesh/mesh-buildpack"

// downloadLicenses are those of what the manifest downloads.
var downloadLicenses = map[string]string{"consul": "BUSL-1.1", "envoy": "Apache-2.0"}

// tool runs a program of the tools' own module in the repository.
func (o options) tool(args ...string) ([]byte, error) {
	return o.goCommand(append([]string{"tool", "-modfile=src/cmd/package/tools/go.mod"}, args...)...)
}

// goCommand runs go in the repository, for the platform that the buildpack's
// programs are for.
func (o options) goCommand(args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = o.root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var problems bytes.Buffer
	cmd.Stderr = &problems
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("failed to run go %s: %w\n%s", strings.Join(args, " "), err, &problems)
	}
	return output, nil
}

// license matches the names of files that have to be handed on.
var license = regexp.MustCompile(`(?i)^(licen[cs]e|notice|copying|patents)`)

// licenses is the text of every licence and notice of what is linked, Go's own
// included. go-licenses fails where it does not find one, or a forbidden one.
func (o options) licenses() ([]byte, error) {
	dir, err := os.MkdirTemp("", "licenses-")
	if err != nil {
		return nil, fmt.Errorf("failed to make room: %w", err)
	}
	defer os.RemoveAll(dir)
	args := []string{"go-licenses", "save", "--force", "--save_path", dir, "--ignore", ownModule}
	if _, err := o.tool(append(args, "./src/cmd/buildpack", "./src/cmd/mesh")...); err != nil {
		return nil, err
	}
	var all bytes.Buffer
	add := func(name, path string) error {
		text, err := os.ReadFile(path)
		fmt.Fprintf(&all, "==== %s\n\n%s\n", name, text)
		return err
	}
	goRoot, err := o.goCommand("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	err = add("The Go standard library", filepath.Join(strings.TrimSpace(string(goRoot)), "LICENSE"))
	if err != nil {
		return nil, fmt.Errorf("failed to read Go's own licence: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !license.MatchString(entry.Name()) {
			return err
		}
		return add(strings.TrimPrefix(path, dir+"/"), path)
	})
	if err != nil {
		return nil, fmt.Errorf("failed to collect the licences: %w", err)
	}
	return all.Bytes(), nil
}

// bom is a CycloneDX bill of materials: the buildpack, its programs, the Go
// modules in each, and what the manifest downloads.
func (o options) bom(m manifest, version string) ([]byte, error) {
	bom := cyclonedx.NewBOM()
	top := cyclonedx.Component{
		BOMRef: m.Language + "_buildpack", Type: cyclonedx.ComponentTypeApplication,
		Name: m.Language + "_buildpack", Version: version,
	}
	bom.Metadata = &cyclonedx.Metadata{Component: &top}
	components := map[string]cyclonedx.Component{}
	depends := map[string][]string{}
	for _, program := range programs {
		if err := o.addProgram(program, version, components, depends); err != nil {
			return nil, err
		}
	}
	for _, d := range m.Dependencies {
		if slices.Contains(d.Stacks, o.stack) {
			c := o.download(d)
			components[c.BOMRef] = c
		}
	}
	for ref, c := range components {
		if c.Type == cyclonedx.ComponentTypeApplication {
			depends[top.BOMRef] = append(depends[top.BOMRef], ref)
		}
	}
	var list []cyclonedx.Component
	for _, ref := range slices.Sorted(maps.Keys(components)) {
		list = append(list, components[ref])
	}
	var dependencies []cyclonedx.Dependency
	for _, ref := range slices.Sorted(maps.Keys(depends)) {
		on := slices.Sorted(slices.Values(depends[ref]))
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: ref, Dependencies: &on})
	}
	bom.Components, bom.Dependencies = &list, &dependencies
	var text bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&text, cyclonedx.BOMFileFormatJSON)
	if err := encoder.SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("failed to write the bill of materials: %w", err)
	}
	return text.Bytes(), nil
}

// addProgram adds a program and the modules that are linked into it.
func (o options) addProgram(program, version string, components map[string]cyclonedx.Component, depends map[string][]string) error {
	text, err := o.tool("cyclonedx-gomod", "bin", "-json", "-noserial", "-notimestamp", "-std", "-version", "v"+version, program)
	if err != nil {
		return err
	}
	var of cyclonedx.BOM
	if err := json.Unmarshal(text, &of); err != nil {
		return fmt.Errorf("failed to read the bill of materials of %s: %w", program, err)
	}
	sum, err := artifact.Sum(filepath.Join(o.root, program))
	if err != nil {
		return fmt.Errorf("failed to read %s: %w", program, err)
	}
	c := *of.Metadata.Component
	c.Name, c.Hashes = filepath.Base(program), sha256(sum)
	components[c.BOMRef] = c
	for _, module := range *of.Components {
		components[module.BOMRef] = module
		depends[c.BOMRef] = append(depends[c.BOMRef], module.BOMRef)
	}
	return nil
}

// download is what the manifest downloads: in the zip, or fetched at staging.
func (o options) download(d dependency) cyclonedx.Component {
	scope := cyclonedx.ScopeOptional
	if o.cached {
		scope = cyclonedx.ScopeRequired
	}
	c := cyclonedx.Component{
		BOMRef: d.Name + "@" + d.Version, Type: cyclonedx.ComponentTypeApplication,
		Name: d.Name, Version: d.Version, Scope: scope, Hashes: sha256(d.SHA256),
		ExternalReferences: &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeDistribution, URL: d.URI}},
	}
	if id := downloadLicenses[d.Name]; id != "" {
		c.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: id}}}
	}
	return c
}

func sha256(sum string) *[]cyclonedx.Hash {
	return &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}}
}
