package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/consul-mesh/mesh-buildpack/src/consulfile"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/pairs"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

func (c *command) validate() func(string) error {
	asJSON := c.flags.Bool("json", false, "diagnostics as JSON")
	return func(file string) error {
		if *asJSON {
			_, warnings, err := c.judge(file)
			return c.printJSON(warnings, err)
		}
		mesh, err := c.load(file)
		if err != nil {
			return err
		}
		// Which versions a constraint becomes, the buildpack's manifest says.
		if exact.MatchString(mesh.Consul.Version) && exact.MatchString(mesh.Envoy.Version) {
			if warning := pairs.Check(mesh.Consul.Version, mesh.Envoy.Version); warning != "" {
				fmt.Fprintln(c.err, "warning:", warning)
			}
		}
		_, err = fmt.Fprintf(c.out, "%s is good\n", nameOf(file))
		return err
	}
}

var exact = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// diagnostic is one finding, for editors. Lines and columns count from 1, and
// columns count characters; a finding without a place has line 0.
type diagnostic struct {
	Severity string   `json:"severity"` // "error" or "warning"
	Summary  string   `json:"summary"`
	Detail   string   `json:"detail"`
	File     string   `json:"file,omitempty"`
	Start    position `json:"start"`
	End      position `json:"end"`
}

type position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

func (c *command) printJSON(warnings *meshfile.Diagnostics, err error) error {
	found := warnings
	list := []diagnostic{}
	if err != nil && !errors.As(err, &found) {
		list = append(list, diagnostic{Severity: "error", Summary: err.Error()})
	}
	if found != nil {
		for _, diag := range found.List {
			d := diagnostic{Severity: "error", Summary: diag.Summary, Detail: diag.Detail}
			if diag.Severity == hcl.DiagWarning {
				d.Severity = "warning"
			}
			if at := diag.Subject; at != nil {
				d.File = at.Filename
				d.Start, d.End = position{at.Start.Line, at.Start.Column}, position{at.End.Line, at.End.Column}
			}
			list = append(list, d)
		}
	}
	if err := c.encode(list); err != nil {
		return err
	}
	if err != nil {
		return errSaid
	}
	return nil
}

func (c *command) encode(value any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func (c *command) render() func(string) error {
	dir := c.flags.String("out", "", "folder to write to")
	index := c.flags.String("index", "0", "the buildpack's dependency index")
	return func(file string) error {
		mesh, err := c.load(file)
		if err != nil {
			return err
		}
		if c.context.Defaults != nil {
			if err := c.listOrigins(mesh); err != nil {
				return err
			}
		}
		return c.write(*dir, render.Files(mesh, *index))
	}
}

// importDefinition prints a mesh.hcl for a service definition of Consul's, and says what
// of that is not in it.
func (c *command) importDefinition() func(string) error {
	return func(file string) error {
		if file == "" {
			return errors.New("import: want a service definition of Consul's, as its agent reads it or its API has it")
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text, left, err := consulfile.Import(filepath.Base(file), src)
		if err != nil {
			return err
		}
		if _, err := c.out.Write(text); err != nil {
			return err
		}
		for i, l := range left {
			if i == 0 {
				fmt.Fprintln(c.err, "This has no counterpart:")
			}
			fmt.Fprintf(c.err, "  %s: %s\n", l.Path, l.Reason)
		}
		if _, _, err := meshfile.Parse(meshfile.Name, text, c.context); err != nil {
			return fmt.Errorf("what was printed is not good yet:\n%w", err)
		}
		return nil
	}
}

// listOrigins says where the values come from that an operator may say for all apps.
func (c *command) listOrigins(mesh *meshfile.Mesh) error {
	fmt.Fprintln(c.out, "==> origins <==")
	table := tabwriter.NewWriter(c.out, 0, 0, 3, ' ', 0)
	for _, origin := range mesh.Origins() {
		from := "built in"
		if origin.File != "" {
			from = fmt.Sprintf("%s:%d", origin.File, origin.Line)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", origin.Name, origin.Value, from)
	}
	fmt.Fprintln(table)
	return table.Flush()
}

// write prints files, or writes them below a folder if there is one.
func (c *command) write(dir string, files []render.File) error {
	for _, file := range files {
		if dir == "" {
			if _, err := fmt.Fprintf(c.out, "==> %s <==\n%s\n", file.Path, file.Content); err != nil {
				return err
			}
			continue
		}
		path := filepath.Join(dir, file.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("failed to write %s: %w", file.Path, err)
		}
		if err := os.WriteFile(path, file.Content, 0o644); err != nil {
			return fmt.Errorf("failed to write %s: %w", file.Path, err)
		}
	}
	return nil
}

func (c *command) format() func(string) error {
	check := c.flags.Bool("check", false, "only say whether the file is formatted")
	return func(file string) error {
		if isJSON(file) {
			return errors.New("fmt is for HCL's own syntax, a JSON file has none")
		}
		path := file
		if path == "" {
			path = meshfile.Name
		}
		before, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("failed to read the file: %w", err)
		}
		// What is no HCL would be formatted into something worse.
		if _, diags := hclsyntax.ParseConfig(before, nameOf(file), hcl.InitialPos); diags.HasErrors() {
			_, _, err := meshfile.Parse(nameOf(file), before, c.context)
			return err
		}
		after := hclwrite.Format(before)
		switch {
		case bytes.Equal(before, after):
			return nil
		case *check:
			return fmt.Errorf("%s is not formatted\nhint: run meshctl fmt", nameOf(file))
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("failed to write the file: %w", err)
		}
		return os.WriteFile(path, after, info.Mode().Perm())
	}
}

// starters are the kinds of files that init writes, KIND.hcl each.
//
//go:embed starters
var starters embed.FS

func (c *command) init() func(string) error {
	force := c.flags.Bool("force", false, "write over a file that is there")
	return func(string) error {
		starter, file, err := chosen(c.files)
		if err != nil {
			return err
		}
		mode := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if !*force {
			mode |= os.O_EXCL
		}
		out, err := os.OpenFile(file, mode, 0o644)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("there is a %s already\nhint: -force writes over it", file)
		}
		if err != nil {
			return fmt.Errorf("failed to write the starter: %w", err)
		}
		_, err = out.Write(starter)
		return errors.Join(err, out.Close())
	}
}

// chosen is the starter that init writes, and the file: KIND, FILE, both or none.
func chosen(args []string) (starter []byte, file string, err error) {
	kind, file := "app", meshfile.Name
	if len(args) > 0 {
		if _, err := starters.ReadFile("starters/" + args[0] + ".hcl"); err == nil {
			kind, args = args[0], args[1:]
		}
	}
	switch len(args) {
	case 0:
	case 1:
		file = args[0]
	default:
		return nil, "", fmt.Errorf("init: want a kind of starter and a file, got %q\n%s", args, usage)
	}
	starter, err = starters.ReadFile("starters/" + kind + ".hcl")
	return starter, file, err
}

func (c *command) schema() func(string) error {
	return func(string) error { return c.encode(meshfile.Schema()) }
}
