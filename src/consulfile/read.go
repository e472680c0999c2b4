package consulfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// read gives what a file has, as JSON has it. A block is a list of what stands in those
// of its name, and one with labels is in a map by its label.
func read(filename string, src []byte) (map[string]any, error) {
	all := map[string]any{}
	if strings.HasSuffix(filename, ".json") {
		if err := json.Unmarshal(src, &all); err != nil {
			return nil, fmt.Errorf("%s is no JSON: %w", filename, err)
		}
		return all, nil
	}
	file, diags := hclparse.NewParser().ParseHCL(src, filename)
	if diags.HasErrors() {
		return nil, errors.New(diags[0].Error())
	}
	return body(file.Body.(*hclsyntax.Body))
}

func body(b *hclsyntax.Body) (map[string]any, error) {
	all := map[string]any{}
	for name, attribute := range b.Attributes {
		value, diags := attribute.Expr.Value(&hcl.EvalContext{})
		if diags.HasErrors() {
			return nil, errors.New(diags[0].Error())
		}
		text, err := ctyjson.Marshal(value, value.Type())
		if err != nil {
			return nil, err
		}
		var plain any
		if err := json.Unmarshal(text, &plain); err != nil {
			return nil, err
		}
		all[name] = plain
	}
	for _, block := range b.Blocks {
		inner, err := body(block.Body)
		if err != nil {
			return nil, err
		}
		for _, label := range slices.Backward(block.Labels) {
			inner = map[string]any{label: inner}
		}
		list, _ := all[block.Type].([]any)
		all[block.Type] = append(list, inner)
	}
	return all, nil
}

// object is a set of names and values of a definition, and what of it has not been
// taken yet.
type object struct {
	path   string
	values map[string]any // by their names without underscores, in lower case
	names  map[string]string
	into   *[]Left
}

// spelled is a name without what its spellings differ in: EnableTagOverride is
// enable_tag_override.
func spelled(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

func newObject(path string, values map[string]any, into *[]Left) *object {
	o := &object{path: path, values: map[string]any{}, names: map[string]string{}, into: into}
	for name, value := range values {
		o.values[spelled(name)], o.names[spelled(name)] = value, name
	}
	return o
}

func (o *object) take(name string) any {
	value := o.values[spelled(name)]
	delete(o.values, spelled(name))
	return value
}

func (o *object) text(name string) string {
	switch value := o.take(name).(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

func (o *object) number(name string) int {
	value, _ := o.take(name).(float64)
	return int(value)
}

func (o *object) flag(name string) bool {
	value, _ := o.take(name).(bool)
	return value
}

// objects are what stands under a name: one, or a list of them.
func (o *object) objects(name string) (all []*object) {
	path := o.path + name
	switch value := o.take(name).(type) {
	case map[string]any:
		all = append(all, newObject(path+".", value, o.into))
	case []any:
		for i, element := range value {
			if inner, is := element.(map[string]any); is {
				at := path
				if len(value) > 1 {
					at = fmt.Sprintf("%s[%d]", path, i)
				}
				all = append(all, newObject(at+".", inner, o.into))
			}
		}
	}
	return all
}

// object is the one under a name, an empty one without it.
func (o *object) object(name string) *object {
	if all := o.objects(name); len(all) > 0 {
		return all[0]
	}
	return newObject(o.path+name+".", nil, o.into)
}

// leave notes what was not taken.
func (o *object) leave() {
	for _, name := range slices.Sorted(maps.Keys(o.values)) {
		if value := o.values[name]; value == nil || value == false || value == "" || value == float64(0) {
			continue // as Consul's API has what nobody has said
		}
		o.lose(o.names[name], "")
	}
}

// lose notes what has no counterpart. Without a reason it is the language's.
func (o *object) lose(name, reason string) {
	*o.into = append(*o.into, Left{Path: o.path + name, Reason: reason})
}
