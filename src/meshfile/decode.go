package meshfile

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// decoder turns the body of a file into the types of mesh.go, and judges every
// single value. gohcl could do the first, but has no types of its own, such as
// Duration, and words what is wrong in terms of Go.
type decoder struct {
	findings
	scope *hcl.EvalContext
	// incomplete says that a part of the file could not be decoded: a service may
	// have been in it.
	incomplete bool
}

// body decodes a body into a struct.
func (d *decoder) body(body hcl.Body, into reflect.Value) {
	t := into.Type()
	schema := schemaOf(t)
	before := len(d.diags)
	found := d.content(body, schema)
	if found == nil {
		d.incomplete = true
		return
	}
	for i := range t.NumField() {
		name, kind, _ := strings.Cut(t.Field(i).Tag.Get("hcl"), ",")
		if required := name != "" && kind == ""; required && found.Attributes[name] == nil {
			d.fail(body.MissingItemRange(), "Missing required argument",
				"The argument %q is required, but no definition was found."+seeReference, name)
		}
	}
	d.incomplete = d.incomplete || d.diags[before:].HasErrors()
	blocks := found.Blocks.ByType()
	for i := range t.NumField() {
		field, value := t.Field(i), into.Field(i)
		switch name, kind, _ := strings.Cut(field.Tag.Get("hcl"), ","); kind {
		case "body":
			value.Set(reflect.ValueOf(body))
		case "block":
			d.blocks(name, blocks[name], value)
		case "", "optional":
			if attribute := found.Attributes[name]; attribute != nil {
				d.attribute(attribute, field, value)
			}
		}
	}
}

// content is what a body has of a schema. What else it has is a mistake.
func (d *decoder) content(body hcl.Body, schema *hcl.BodySchema) *hcl.BodyContent {
	// The decoder's own words come first: of two findings at one place, tidy keeps
	// the first.
	d.labels(body, schema)
	found, diags := body.Content(schema)
	unknown := unknownNames(body, schema, diags)
	for _, diag := range diags {
		if name, is := unknown[diag.Subject.Start]; is {
			if hint := Hint(name); hint != "" {
				diag.Detail += " " + hint
			}
			diag.Detail += seeReference
		}
	}
	d.diags = append(d.diags, diags...)
	return found
}

const seeReference = " The whole language is described in " + Reference + "."

// labels says which blocks of a body lack their label, or have one too many.
// In the JSON syntax a label is a property, and HCL says what is wrong.
func (d *decoder) labels(body hcl.Body, schema *hcl.BodySchema) {
	its, ok := native(body)
	if !ok {
		return
	}
	for _, block := range its.Blocks {
		i := slices.IndexFunc(schema.Blocks, func(header hcl.BlockHeaderSchema) bool { return header.Type == block.Type })
		if i < 0 || len(schema.Blocks[i].LabelNames) == 0 {
			continue
		}
		switch label := schema.Blocks[i].LabelNames[0]; len(block.Labels) {
		case 0:
			d.fail(block.OpenBraceRange, fmt.Sprintf("Missing %s for %s", label, block.Type),
				`The %s stands before the brace: %s "…" { … }`, label, block.Type)
		case 1:
		default:
			d.fail(block.LabelRanges[1], "Extraneous label for "+block.Type, `It has one, the %s: %s "…" { … }`, label, block.Type)
		}
	}
}

// unknownNames are the names in a body that its schema does not have, by where
// they stand. Without diagnostics there are none.
func unknownNames(body hcl.Body, schema *hcl.BodySchema, diags hcl.Diagnostics) map[hcl.Pos]string {
	if len(diags) == 0 {
		return nil
	}
	names := map[hcl.Pos]string{}
	_, rest, _ := body.PartialContent(schema)
	attributes, _ := rest.JustAttributes()
	for name, attribute := range attributes {
		names[attribute.NameRange.Start] = name
	}
	if its, ok := native(body); ok {
		for _, block := range its.Blocks {
			if !slices.ContainsFunc(schema.Blocks, func(header hcl.BlockHeaderSchema) bool { return header.Type == block.Type }) {
				names[block.TypeRange.Start] = block.Type
			}
		}
	}
	return names
}

// blocks decodes the blocks of one name into a field: []*T, or *T where only
// one may stand.
func (d *decoder) blocks(name string, blocks hcl.Blocks, into reflect.Value) {
	if into.Kind() == reflect.Slice {
		for _, block := range blocks {
			into.Set(reflect.Append(into, d.block(block, into.Type().Elem())))
		}
		return
	}
	switch len(blocks) {
	case 0:
	case 1:
		into.Set(d.block(blocks[0], into.Type()))
	default:
		d.incomplete = true
		d.fail(blocks[1].DefRange, fmt.Sprintf("Duplicate %s block", name),
			"Only one %s block is allowed. Another was defined at %s.", name, blocks[0].DefRange)
	}
}

// block decodes a block into a new struct, and returns the pointer to it.
func (d *decoder) block(block *hcl.Block, pointer reflect.Type) reflect.Value {
	decoded := reflect.New(pointer.Elem())
	d.body(block.Body, decoded.Elem())
	for i := range decoded.Elem().NumField() {
		field, value := pointer.Elem().Field(i), decoded.Elem().Field(i)
		switch _, kind, _ := strings.Cut(field.Tag.Get("hcl"), ","); kind {
		case "label":
			value.SetString(block.Labels[0])
			d.judge(field, value, block.Labels[0], block.LabelRanges[0])
		case "label_range":
			value.Set(reflect.ValueOf(block.LabelRanges[0]))
		}
	}
	return decoded
}

// attribute decodes an attribute into a field, and judges it.
func (d *decoder) attribute(attribute *hcl.Attribute, field reflect.StructField, into reflect.Value) {
	value, diags := attribute.Expr.Value(d.scope)
	d.diags = append(d.diags, diags...)
	if diags.HasErrors() || !value.IsWhollyKnown() {
		d.incomplete = true
		return
	}
	if into.Type() == reflect.TypeFor[Object]() && !value.IsNull() && !value.Type().IsObjectType() && !value.Type().IsMapType() {
		d.fail(attribute.Expr.Range(), "Not an object", "It is a set of names and values in braces.")
		return
	}
	target := into
	if into.Kind() == reflect.Pointer {
		if value.IsNull() {
			return
		}
		target = reflect.New(into.Type().Elem()).Elem()
	}
	text, problem := decodeValue(value, target.Addr().Interface())
	if problem != "" {
		d.incomplete = true
		if into.Kind() == reflect.Bool && value.Type() == cty.String && strings.Contains(value.AsString(), ":") {
			// Consul's own form of a check.
			problem += fmt.Sprintf(" Host and port are always the service's own: %s = true.", attribute.Name)
		}
		d.diags = append(d.diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Unsuitable value type", Detail: problem,
			Subject: attribute.Expr.StartRange().Ptr(), Context: attribute.Expr.Range().Ptr(),
		})
		return
	}
	if into.Kind() == reflect.Pointer {
		into.Set(target.Addr())
	}
	d.judge(field, target, text, attribute.Expr.Range())
}

// decodeValue puts a value where to points, and gives its text. The problem says
// what is wanted in place of a value of another type.
func decodeValue(value cty.Value, to any) (text, problem string) {
	switch to := to.(type) {
	case *Object:
		return "", decodeObject(value, to)
	case encoding.TextUnmarshaler:
		problem = convertValue(value, &text)
		_ = to.UnmarshalText([]byte(text)) // judge says what is wrong with the text
		return text, problem
	}
	problem = convertValue(value, to)
	return fmt.Sprint(reflect.ValueOf(to).Elem().Interface()), problem
}

// decodeObject keeps an object as JSON has it.
func decodeObject(value cty.Value, to *Object) (problem string) {
	if value.IsNull() {
		return ""
	}
	text, err := ctyjson.Marshal(value, value.Type())
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		*to = nil
		return "A number in it is too large for JSON." // all else that HCL has, JSON has
	}
	return ""
}

// convertValue is decodeValue for the types that HCL has too.
func convertValue(value cty.Value, to any) (problem string) {
	wanted, err := gocty.ImpliedType(to)
	if err != nil {
		return err.Error() // TestTags finds it
	}
	converted, err := convert.Convert(value, wanted)
	if err != nil {
		return unsuitable(value, wanted)
	}
	if gocty.FromCtyValue(converted, to) == nil {
		return ""
	}
	if wanted == cty.Number && !value.IsNull() {
		return "A whole number is required."
	}
	return "null is no value here. Leave it out." // or in the list
}

// unsuitable says what is wanted in place of a value of another type.
func unsuitable(value cty.Value, wanted cty.Type) string {
	is := value.Type()
	switch {
	case wanted.IsListType() && is.IsTupleType(), wanted.IsMapType() && is.IsObjectType():
		for key, element := range value.Elements() {
			if _, err := convert.Convert(element, wanted.ElementType()); err != nil {
				name, _ := convert.Convert(key, cty.String)
				return fmt.Sprintf("element %q: %s", name.AsString(), unsuitable(element, wanted.ElementType()))
			}
		}
	case wanted == cty.Number && is == cty.String:
		return "A number is required."
	case wanted == cty.Bool && is == cty.String:
		return "true or false is required, without quotes."
	case is.IsTupleType() && wanted.IsPrimitiveType():
		return wanted.FriendlyName() + " required, but this is a list."
	case is.IsPrimitiveType() || wanted.IsPrimitiveType():
		return fmt.Sprintf("%s required, but this is of the type %s.", wanted.FriendlyName(), is.FriendlyName())
	}
	return wanted.FriendlyName() + " required."
}
