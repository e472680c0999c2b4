package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// errSaid ends a command whose answer is on its way already.
var errSaid = errors.New("said")

// command is one call of the tool.
type command struct {
	flags    *flag.FlagSet
	files    []string
	out, err io.Writer
	context  meshfile.Context
}

func run(args []string, out, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("want a command\n%s", usage)
	}
	name := args[0]
	if name == "help" || name == "-h" || name == "--help" {
		_, err := io.WriteString(out, usage)
		return err
	}
	c := &command{flags: flag.NewFlagSet(name, flag.ContinueOnError), out: out, err: stderr}
	c.flags.SetOutput(io.Discard)
	commands := map[string]func() func(file string) error{
		"validate": c.validate, "render": c.render, "fmt": c.format, "init": c.init, "schema": c.schema,
		"import": c.importDefinition, "acl": c.acl, "intentions": c.intentions, "sweep": c.sweep,
	}
	prepare := commands[name]
	if prepare == nil {
		return fmt.Errorf("there is no command %q\n%s", name, usage)
	}
	c.context = meshfile.NewContext(os.Environ())
	for flagName, variable := range map[string]string{
		"app": "name", "space": "space", "org": "organization", "id": "id", "route": "route",
	} {
		c.flags.Func(flagName, "app."+variable, func(value string) error {
			c.context.App[variable] = value
			return nil
		})
	}
	defaults := c.flags.String("defaults", "", "what the operator says for all apps")
	work := prepare()
	for rest := args[1:]; len(rest) > 0; { // options may follow a file
		if err := c.flags.Parse(rest); errors.Is(err, flag.ErrHelp) {
			_, err := io.WriteString(out, usage)
			return err
		} else if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, usage)
		}
		if rest = c.flags.Args(); len(rest) > 0 {
			c.files, rest = append(c.files, rest[0]), rest[1:]
		}
	}
	if *defaults != "" {
		var err error
		if c.context.Defaults, err = meshfile.ReadDefaults(*defaults); err != nil {
			return err
		}
		if c.context.Defaults == nil {
			return fmt.Errorf("there is no file %s", *defaults)
		}
	}
	file := ""
	switch {
	case len(c.files) > 1 && name != "intentions" && name != "init":
		return fmt.Errorf("%s: want one file, got %q\n%s", name, c.files, usage)
	case len(c.files) > 0:
		file = c.files[0]
	}
	return work(file)
}

// load reads the named file, or the one of this folder, and prints its
// warnings.
func (c *command) load(file string) (*meshfile.Mesh, error) {
	mesh, warnings, err := c.judge(file)
	if warnings != nil {
		fmt.Fprintln(c.err, warnings)
	}
	return mesh, err
}

func (c *command) judge(file string) (mesh *meshfile.Mesh, warnings *meshfile.Diagnostics, err error) {
	if file == "" {
		return meshfile.Load(".", c.context)
	}
	return meshfile.LoadFile(file, c.context)
}

// nameOf is the file that a command works on, for messages.
func nameOf(file string) string {
	if file != "" {
		return filepath.Base(file)
	}
	if _, err := os.Stat(meshfile.JSONName); err == nil {
		return meshfile.JSONName
	}
	return meshfile.Name
}

func isJSON(file string) bool { return strings.HasSuffix(nameOf(file), ".json") }
