package meshfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Context is what expressions in a mesh.hcl can look at.
type Context struct {
	// App has the values of those AppVariables that are known.
	App map[string]string
	// Staging says that what is not known of the app counts as empty, with a warning:
	// 0.1.0 staged such files. Elsewhere it is a mistake.
	Staging bool
	// Env is the environment at staging.
	Env map[string]string
	// Defaults are what the operator says for all apps, nil for nothing.
	Defaults *Defaults
}

// AppVariables are the names below `app`, with what they are and the option of meshctl
// that says it.
var AppVariables = []struct{ Name, Doc, Option string }{
	{"name", "the app's name", "-app NAME"},
	{"id", "the app's GUID", "-id GUID"},
	{"space", "the name of its space", "-space NAME"},
	{"organization", "the name of its organization", "-org NAME"},
	{"route", "its first route, empty without one", "-route HOST"},
}

// NewContext reads the environment that Cloud Foundry gives a staging.
func NewContext(environ []string) Context {
	c := Context{App: map[string]string{}, Env: map[string]string{}}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		c.Env[name] = value
	}
	// Each by itself: what one field has says nothing of another.
	var app map[string]json.RawMessage
	if json.Unmarshal([]byte(c.Env["VCAP_APPLICATION"]), &app) != nil || app == nil {
		return c
	}
	for variable, field := range map[string]string{
		"id": "application_id", "name": "application_name", "space": "space_name", "organization": "organization_name",
	} {
		var value *string
		if json.Unmarshal(app[field], &value) == nil && value != nil {
			c.App[variable] = *value
		}
	}
	var routes []string
	if text, is := app["application_uris"]; !is || json.Unmarshal(text, &routes) == nil {
		c.App["route"] = strings.Join(routes[:min(1, len(routes))], "")
	}
	return c
}

// unknown says that a variable of the app is not known here. It is no mistake of the
// file, so it hides none.
func (c Context) unknown(name string, at hcl.Range) *hcl.Diagnostic {
	const summary = "A value that is not known"
	if c.Staging {
		return &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Subject: &at, Detail: fmt.Sprintf(
			"The platform does not say app.%s: VCAP_APPLICATION is missing, or has none that can be read. It counts as empty text, and the next version refuses this.", name)}
	}
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Subject: &at, Detail: fmt.Sprintf(
		"Outside of Cloud Foundry nobody says app.%s. The option %s of meshctl does.", name, optionFor(name))}
}

// SecretEnv are patterns of names of environment variables that may carry
// credentials, in upper case. The file ends up in the droplet, so they are
// refused.
var SecretEnv = []string{
	"VCAP_SERVICES*", "SERVICE_BINDING_ROOT", "*_URL", "*_URI", "*_DSN", "*PASSWORD*", "*PASSWD*", "*_PASS", "*PASSPHRASE*",
	"*SECRET*", "*TOKEN*", "*JWT*", "*CREDENTIAL*", "*_KEY", "*API_KEY*", "*APIKEY*", "*PRIVATE_KEY*", "*ACCESS_KEY*", "*CERT*",
}

// InstanceEnv are patterns of names of variables that differ between
// instances, while all of them share the droplet.
var InstanceEnv = []string{
	"CF_INSTANCE_*", "INSTANCE_GUID", "INSTANCE_INDEX", "PORT", "VCAP_APP_HOST", "VCAP_APP_PORT",
	"VCAP_APPLICATION", "MEMORY_LIMIT", "HOME", "PWD", "TMPDIR",
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, _ := path.Match(pattern, strings.ToUpper(name)) // the patterns are good ones
		return matched
	})
}

// scope is what the expressions in a file are evaluated with; the diagnostics say
// what is wrong with the variables that they name. Of the environment the scope has
// only those variables that the file names and may see.
func (c Context) scope(body hcl.Body, mesh *Mesh) (*hcl.EvalContext, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	env := map[string]cty.Value{}
	for _, traversal := range variables(body, reflect.TypeFor[Mesh]()) {
		name := ""
		if len(traversal) > 1 {
			name = step(traversal[1])
		}
		value, found := c.Env[name]
		var summary, detail string
		switch root := traversal.RootName(); {
		case root == "app" && optionFor(name) != "":
			mesh.App = c.App
			if _, known := c.App[name]; !known {
				diags = append(diags, c.unknown(name, traversal.SourceRange()))
			}
			continue
		case root != "env" || name == "":
			summary, detail = "Undefined variable", fmt.Sprintf(
				"There is no variable %s. These are: %s, and env.NAME for the environment at staging.", spelled(root, name), appVariableNames())
			switch _, isEnv := c.Env[root]; {
			case strings.HasPrefix(root, "NOMAD_"):
				detail += " Nomad's have no counterpart: all instances share what is staged."
			case len(traversal) == 1 && (isEnv || shellVariable.MatchString(root)):
				detail += fmt.Sprintf(" The environment variable is env.%s.", root)
			case len(traversal) == 1 && root != "app" && root != "env":
				detail += fmt.Sprintf(" Text stands in quotes: %q.", root)
			}
		case matchesAny(SecretEnv, name):
			summary, detail = "A variable that may carry credentials", fmt.Sprintf(
				"What this file says ends up in the droplet, so %s cannot be used. Credentials come from a bound service.", name)
		case matchesAny(InstanceEnv, name):
			summary, detail = "A variable that differs between instances", fmt.Sprintf(
				"All instances share what is staged, so %s cannot be used. Address, node name and PORT are laid over it in the container.", name)
		case !found:
			summary, detail = "Undefined environment variable", fmt.Sprintf(
				"%s is not set at staging. These are: %s.", name, strings.Join(c.visibleEnv(), ", "))
		}
		if summary != "" {
			value = "" // HCL shows values beside what is wrong
			at := traversal.SourceRange()
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at})
		}
		if root := traversal.RootName(); root == "env" && name != "" {
			env[name] = cty.StringVal(value)
		}
	}
	app := map[string]cty.Value{}
	for _, variable := range AppVariables {
		app[variable.Name] = cty.StringVal(c.App[variable.Name])
	}
	return &hcl.EvalContext{
		Variables: map[string]cty.Value{"app": cty.ObjectVal(app), "env": cty.ObjectVal(env)},
		Functions: functions(),
	}, diags
}

// shellVariable is how a variable of the environment is spelled by those who take a
// template for the shell's.
var shellVariable = regexp.MustCompile(`^[A-Z][A-Z0-9]*_[A-Z0-9_]*$`)

func spelled(root, name string) string {
	if name == "" {
		return root
	}
	return root + "." + name
}

// optionFor is the option of meshctl that says a variable of the app, empty where there
// is no such variable.
func optionFor(name string) string {
	for _, variable := range AppVariables {
		if variable.Name == name {
			return variable.Option
		}
	}
	return ""
}

func appVariableNames() string {
	var names []string
	for _, variable := range AppVariables {
		names = append(names, "app."+variable.Name)
	}
	return strings.Join(names, ", ")
}

// step is the name in env.NAME or env["NAME"].
func step(traverser hcl.Traverser) string {
	switch t := traverser.(type) {
	case hcl.TraverseAttr:
		return t.Name
	case hcl.TraverseIndex:
		if t.Key.Type() == cty.String && t.Key.IsKnown() && !t.Key.IsNull() {
			return t.Key.AsString()
		}
	}
	return ""
}

// visibleEnv lists the environment variables that a file may name.
func (c Context) visibleEnv() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Env)), func(name string) bool {
		return matchesAny(SecretEnv, name) || matchesAny(InstanceEnv, name)
	})
}

// variables lists every variable that stands in the expressions of a body.
func variables(body hcl.Body, t reflect.Type) []hcl.Traversal {
	var all []hcl.Traversal
	found := content(body, t)
	for _, attribute := range found.Attributes {
		all = append(all, attribute.Expr.Variables()...)
	}
	if len(found.Blocks) == 0 {
		return all
	}
	types := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, kind, _ := strings.Cut(t.Field(i).Tag.Get("hcl"), ",")
		if kind == "block" {
			types[name] = blockType(t.Field(i).Type)
		}
	}
	for _, block := range found.Blocks {
		all = append(all, variables(block.Body, types[block.Type])...)
	}
	return all
}
