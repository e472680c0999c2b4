package meshfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Defaults are what an operator says for all apps, in the language of mesh.hcl. What an
// app's file says counts before it, attribute by attribute.
type Defaults struct {
	name string
	file *hcl.File
}

// DefaultsName is the name of the operator's file at the top of the buildpack.
const DefaultsName = "defaults.hcl"

// notForAll are the attributes that the manifest of a buildpack says for all apps.
var notForAll = []string{"version", "source", "sha256"}

// ReadDefaults reads an operator's file. It is nil where there is none. A file that has
// names that the language does not have, or what is one app's alone, is a *Diagnostics;
// values are judged together with an app's file.
func ReadDefaults(path string) (*Defaults, error) {
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("failed to read the defaults: %w", err)
	}
	name, parser := filepath.Base(path), hclparse.NewParser()
	file, diags := parser.ParseHCL(src, name)
	d := &decoder{}
	if diags.HasErrors() {
		d.diags = hcl.Diagnostics{firstMistake(diags, src)}
	} else {
		d.forAll(file.Body, reflect.TypeFor[Mesh]())
	}
	if len(d.diags) == 0 {
		return &Defaults{name, file}, nil
	}
	found := &Diagnostics{List: tidy(d.diags), name: name, files: parser.Files()}
	found.hideCredentials()
	return nil, found
}

// forAll judges the names in a body of an operator's file.
func (d *decoder) forAll(body hcl.Body, t reflect.Type) {
	found := d.content(body, schemaOf(t))
	if found == nil {
		return
	}
	for _, name := range notForAll {
		if attribute := found.Attributes[name]; attribute != nil {
			d.fail(attribute.NameRange, "Not in defaults", "Which programs there are, and which of them are the default, manifest.yml says.")
		}
	}
	for _, block := range found.Blocks {
		field := fieldOf(t, block.Type)
		if field.Type.Kind() == reflect.Slice {
			d.fail(block.DefRange, "Not in defaults", "A block %s is one app's.", block.Type)
			continue
		}
		d.forAll(block.Body, blockType(field.Type))
	}
}

// fieldOf is the field of a block.
func fieldOf(t reflect.Type, name string) (field reflect.StructField) {
	for i := range t.NumField() {
		if its, _, _ := strings.Cut(t.Field(i).Tag.Get("hcl"), ","); its == name {
			field = t.Field(i)
		}
	}
	return field
}

// under lays the defaults under an app's file. Those that are for the mode that the app
// does not have are left out, and so are the ports where the modes differ: they are the
// agent's in the one and the servers' in the other.
func (c Context) under(app hcl.Body, mesh *Mesh) (hcl.Body, *hcl.EvalContext, hcl.Diagnostics) {
	if c.Defaults == nil {
		scope, problems := c.scope(app, mesh)
		return app, scope, problems
	}
	both := layered{app, c.Defaults.file.Body}
	scope, problems := c.scope(both, mesh)
	mode := modeIn(both, scope)
	hidden := []string{"addresses"}
	if mode == modeAgentless {
		hidden = slices.Clone(agentAttributes)
	}
	if mode != modeIn(both.below, scope) {
		hidden = append(hidden, "ports")
	}
	both.below = trimmed{both.below, nil, map[string][]string{"consul": hidden}}
	return both, scope, problems
}

// modeIn is the mode that a file says, or means.
func modeIn(body hcl.Body, scope *hcl.EvalContext) (mode string) {
	mode = fieldOf(typeOfConsul, "mode").Tag.Get("default")
	for _, block := range content(body, reflect.TypeFor[Mesh]()).Blocks.OfType("consul") {
		if attribute := content(block.Body, typeOfConsul).Attributes["mode"]; attribute != nil {
			value, _ := attribute.Expr.Value(scope) // the decoder says what is wrong with it
			_, _ = decodeValue(value, &mode)
		}
	}
	return mode
}

// layered is an app's body over that of the defaults.
type layered struct{ app, below hcl.Body }

// Content implements hcl.Body. What is wrong with the defaults, ReadDefaults has said.
func (l layered) Content(schema *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	upper, diags := l.app.Content(schema)
	return l.merge(upper, schema), diags
}

// PartialContent implements hcl.Body.
func (l layered) PartialContent(schema *hcl.BodySchema) (*hcl.BodyContent, hcl.Body, hcl.Diagnostics) {
	upper, rest, diags := l.app.PartialContent(schema)
	return l.merge(upper, schema), rest, diags
}

// JustAttributes implements hcl.Body.
func (l layered) JustAttributes() (hcl.Attributes, hcl.Diagnostics) { return l.app.JustAttributes() }

// MissingItemRange implements hcl.Body.
func (l layered) MissingItemRange() hcl.Range { return l.app.MissingItemRange() }

func (l layered) merge(upper *hcl.BodyContent, schema *hcl.BodySchema) *hcl.BodyContent {
	lower, _, _ := l.below.PartialContent(schema)
	if upper == nil || lower == nil {
		return upper
	}
	both := *upper
	both.Attributes, both.Blocks = hcl.Attributes{}, slices.Clone(upper.Blocks)
	for _, layer := range []*hcl.BodyContent{lower, upper} {
		for name, attribute := range layer.Attributes {
			both.Attributes[name] = attribute
		}
	}
	for _, block := range lower.Blocks {
		i := slices.IndexFunc(both.Blocks, func(b *hcl.Block) bool { return b.Type == block.Type })
		if i < 0 {
			both.Blocks = append(both.Blocks, block)
			continue
		}
		merged := *both.Blocks[i]
		merged.Body = layered{merged.Body, block.Body}
		both.Blocks[i] = &merged
	}
	return &both
}

// trimmed is a body without some names, and with blocks that lack some.
type trimmed struct {
	hcl.Body
	names  []string
	blocks map[string][]string
}

// Content implements hcl.Body.
func (t trimmed) Content(schema *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	found, _, diags := t.PartialContent(schema)
	return found, diags
}

// PartialContent implements hcl.Body.
func (t trimmed) PartialContent(schema *hcl.BodySchema) (*hcl.BodyContent, hcl.Body, hcl.Diagnostics) {
	found, rest, diags := t.Body.PartialContent(schema)
	if found == nil {
		return found, rest, diags
	}
	for _, name := range t.names {
		delete(found.Attributes, name)
	}
	found.Blocks = slices.DeleteFunc(found.Blocks, func(b *hcl.Block) bool { return slices.Contains(t.names, b.Type) })
	for i, block := range found.Blocks {
		if names := t.blocks[block.Type]; names != nil {
			its := *block
			its.Body = trimmed{block.Body, names, nil}
			found.Blocks[i] = &its
		}
	}
	return found, rest, diags
}

// native is a body in HCL's own syntax: that of the app where there are two.
func native(body hcl.Body) (*hclsyntax.Body, bool) {
	if both, is := body.(layered); is {
		body = both.app
	}
	its, is := body.(*hclsyntax.Body)
	return its, is
}

// Origin says where a value of the blocks consul, envoy and lifecycle comes from.
type Origin struct {
	Name  string // such as consul.ports.http
	Value string // as JSON
	File  string // empty for what the language means where no file says anything
	Line  int
}

// Origins lists the values of all that an operator may say for all apps, without those
// that nobody gives.
func (m *Mesh) Origins() []Origin {
	return slices.DeleteFunc(origins("", reflect.ValueOf(m).Elem(), m.Body), func(o Origin) bool {
		name, ofConsul := strings.CutPrefix(o.Name, "consul.")
		return m.Agentless() && ofConsul && (name == "ports.serf_lan" || slices.Contains(agentAttributes, name))
	})
}

func origins(prefix string, block reflect.Value, body hcl.Body) (all []Origin) {
	t := block.Type()
	given := content(body, t).Attributes
	for i := range t.NumField() {
		value := block.Field(i)
		switch name, kind, _ := strings.Cut(t.Field(i).Tag.Get("hcl"), ","); {
		case kind == "optional" && (given[name] != nil || !value.IsZero()):
			text, _ := json.Marshal(value.Interface()) // all that HCL has, JSON has
			origin := Origin{Name: prefix + name, Value: string(text)}
			if attribute := given[name]; attribute != nil {
				origin.File, origin.Line = attribute.Range.Filename, attribute.Range.Start.Line
			}
			all = append(all, origin)
		case kind == "block" && value.Kind() == reflect.Pointer && !value.IsNil():
			its, _ := value.Elem().FieldByName("Body").Interface().(hcl.Body)
			all = append(all, origins(prefix+name+".", value.Elem(), its)...)
		}
	}
	return all
}
