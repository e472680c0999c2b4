package meshfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Context is what expressions in a mesh.hcl can look at.
type Context struct {
	// App has the values of AppVariables, empty ones where they are not known.
	App map[string]string
	// Env is the environment at staging.
	Env map[string]string
	// Defaults are what the operator says for all apps, nil for nothing.
	Defaults *Defaults
}

// AppVariables are the names below `app`, with what they are.
var AppVariables = []struct{ Name, Doc string }{
	{"name", "the app's name"},
	{"id", "the app's GUID"},
	{"space", "the name of its space"},
	{"organization", "the name of its organization"},
	{"route", "its first route, empty without one"},
}

// NewContext reads the environment that Cloud Foundry gives a staging.
func NewContext(environ []string) Context {
	c := Context{App: map[string]string{}, Env: map[string]string{}}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		c.Env[name] = value
	}
	var app struct {
		ID           string   `json:"application_id"`
		Name         string   `json:"application_name"`
		Space        string   `json:"space_name"`
		Organization string   `json:"organization_name"`
		URIs         []string `json:"application_uris"`
	}
	// Outside Cloud Foundry there is none: all of it is empty then.
	_ = json.Unmarshal([]byte(c.Env["VCAP_APPLICATION"]), &app)
	c.App["id"], c.App["name"], c.App["space"], c.App["organization"] = app.ID, app.Name, app.Space, app.Organization
	if len(app.URIs) > 0 {
		c.App["route"] = app.URIs[0]
	}
	return c
}

// Functions that expressions can call: HCL's own standard library, as far as
// it makes sense for names, lists and metadata.
var Functions = map[string]function.Function{
	"coalesce":   stdlib.CoalesceFunc,
	"concat":     stdlib.ConcatFunc,
	"contains":   stdlib.ContainsFunc,
	"format":     stdlib.FormatFunc,
	"join":       stdlib.JoinFunc,
	"jsonencode": stdlib.JSONEncodeFunc,
	"keys":       stdlib.KeysFunc,
	"length":     stdlib.LengthFunc,
	"lower":      stdlib.LowerFunc,
	"merge":      stdlib.MergeFunc,
	"regex":      stdlib.RegexFunc,
	"replace":    stdlib.ReplaceFunc,
	"split":      stdlib.SplitFunc,
	"substr":     stdlib.SubstrFunc,
	"trimprefix": stdlib.TrimPrefixFunc,
	"trimspace":  stdlib.TrimSpaceFunc,
	"trimsuffix": stdlib.TrimSuffixFunc,
	"upper":      stdlib.UpperFunc,
	"values":     stdlib.ValuesFunc,
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
		case root == "app" && isAppVariable(name):
			mesh.App = c.App
			continue
		case root != "env" || name == "":
			summary, detail = "Undefined variable", fmt.Sprintf(
				"There is no variable %s. These are: %s, and env.NAME for the environment at staging.", spelled(root, name), appVariableNames())
			if len(traversal) == 1 && root != "app" && root != "env" {
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
		Functions: Functions,
	}, diags
}

func spelled(root, name string) string {
	if name == "" {
		return root
	}
	return root + "." + name
}

func isAppVariable(name string) bool {
	for _, variable := range AppVariables {
		if variable.Name == name {
			return true
		}
	}
	return false
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
