package meshfile

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// TestFunctions: each example gives what the reference says.
func TestFunctions(t *testing.T) {
	t.Parallel()
	scope := &hcl.EvalContext{Functions: functions()}
	eval := func(text string) cty.Value {
		t.Helper()
		expression, diags := hclsyntax.ParseExpression([]byte(text), "", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		value, diags := expression.Value(scope)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return value
	}
	for _, f := range Functions {
		got, want := eval(f.Example), eval(f.Gives)
		want, err := convert.Convert(want, got.Type())
		if err != nil || !got.RawEquals(want) {
			t.Errorf("%s: got %#v, want %#v, %v", f.Example, got, want, err)
		}
	}
	for text, want := range map[string]string{
		`slug("")`: "", `slug("--A--")`: "a", `slug("Ünï")`: "n", `coalesce("", "x")`: "",
		`slug("` + string(make63()) + `-b")`: string(make63()),
	} {
		if got := eval(text).AsString(); got != want {
			t.Errorf("%s is %q", text, got)
		}
	}
}

// make63 is the longest name that DNS takes.
func make63() []byte {
	name := make([]byte, longestLabel)
	for i := range name {
		name[i] = 'a'
	}
	return name
}

// TestUnknown: what the platform does not say of the app is no empty text.
func TestUnknown(t *testing.T) {
	t.Parallel()
	const file = "service \"stock\" {\n  name = \"stock${app.space == \"prod\" ? \"\" : \"-dev\"}\"\n}\n"
	for name, environ := range map[string][]string{
		"no VCAP_APPLICATION": nil,
		"no JSON":             {"VCAP_APPLICATION={"},
		"null":                {"VCAP_APPLICATION=null"},
		"without it":          {`VCAP_APPLICATION={"application_name":"a"}`},
		"of another type":     {`VCAP_APPLICATION={"space_name":7}`},
	} {
		context := NewContext(environ)
		if _, _, err := Parse(Name, []byte(file), context); err == nil || !contains(err.Error(), "app.space", "-space NAME", "line 2") {
			t.Errorf("%s: %v", name, err)
		}
		context.Staging = true
		mesh, warnings, err := Parse(Name, []byte(file), context)
		if err != nil || warnings == nil || mesh.Services[0].Name != "stock-dev" || !contains(warnings.Error(), "app.space", "line 2", "next version") {
			t.Errorf("%s, at staging: %v, %v", name, warnings, err)
		}
	}
	// What one field has says nothing of another.
	context := NewContext([]string{`VCAP_APPLICATION={"application_id":7,"space_name":"prod"}`})
	if mesh, warnings, err := Parse(Name, []byte(file), context); err != nil || warnings != nil || mesh.Services[0].Name != "stock" {
		t.Errorf("%v, %v", warnings, err)
	}
	// An app may have no route.
	if route, known := context.App["route"]; !known || route != "" {
		t.Errorf("the route is %q, %t", route, known)
	}
}
