package meshfile

import (
	"encoding"
	"reflect"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// Block describes one kind of block of the language, or the whole file where
// it has no name.
type Block struct {
	Name       string       `json:"name,omitempty"`
	Label      string       `json:"label,omitempty"`  // what its label is, empty without one
	Labels     []string     `json:"labels,omitempty"` // the ones it can have
	Many       bool         `json:"many,omitempty"`   // it may stand more than once
	Doc        string       `json:"doc,omitempty"`
	Attributes []*Attribute `json:"attributes,omitempty"`
	Blocks     []*Block     `json:"blocks,omitempty"`
}

// Attribute describes one attribute.
type Attribute struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"` // in HCL's words, such as "list of string"
	Required bool     `json:"required,omitempty"`
	Default  string   `json:"default,omitempty"`
	Without  string   `json:"without,omitempty"` // what it means where it is not given
	Values   []string `json:"values,omitempty"`  // the ones it can have
	Doc      string   `json:"doc,omitempty"`
}

// Schema describes the whole language, in the order in which it is declared.
func Schema() *Block { return describe(reflect.TypeFor[Mesh]()) }

func describe(t reflect.Type) *Block {
	b := &Block{}
	for i := range t.NumField() {
		field := t.Field(i)
		name, kind, _ := strings.Cut(field.Tag.Get("hcl"), ",")
		switch kind {
		case "label":
			b.Label, b.Labels = name, valuesOf(field)
		case "", "optional":
			if name == "" {
				continue
			}
			a := &Attribute{
				Name: name, Type: typeName(field.Type), Required: kind == "", Doc: field.Tag.Get("doc"),
				Default: field.Tag.Get("default"), Without: field.Tag.Get("without"), Values: valuesOf(field),
			}
			b.Attributes = append(b.Attributes, a)
		case "block":
			inner := describe(blockType(field.Type))
			inner.Name, inner.Doc = name, field.Tag.Get("doc")
			inner.Many = field.Type.Kind() == reflect.Slice
			b.Blocks = append(b.Blocks, inner)
		}
	}
	return b
}

// valuesOf lists the values that a field can have, nil where it is free.
func valuesOf(field reflect.StructField) []string {
	values := field.Tag.Get("oneof")
	if values == "" {
		return nil
	}
	return strings.Split(values, ",")
}

// blockType is the struct behind a block field: []*T or *T.
func blockType(t reflect.Type) reflect.Type {
	for t.Kind() != reflect.Struct {
		t = t.Elem()
	}
	return t
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Object]():
		return "object"
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "string"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "map of " + typeName(t.Elem())
	case t.Kind() == reflect.Int:
		return "number"
	}
	return t.Kind().String()
}

// schemas keeps what gohcl makes of a type: a file has thousands of blocks of a
// dozen types.
var schemas sync.Map

func schemaOf(t reflect.Type) *hcl.BodySchema {
	if schema, found := schemas.Load(t); found {
		return schema.(*hcl.BodySchema)
	}
	schema, _ := gohcl.ImpliedBodySchema(reflect.New(t).Interface())
	for i := range schema.Attributes {
		schema.Attributes[i].Required = false // the decoder says what is missing
	}
	schemas.Store(t, schema)
	return schema
}

// content is that part of a body which the schema knows.
func content(body hcl.Body, t reflect.Type) *hcl.BodyContent {
	if body == nil {
		return &hcl.BodyContent{}
	}
	// What is wrong with it, the decoder says.
	content, _, _ := body.PartialContent(schemaOf(t))
	if content == nil {
		return &hcl.BodyContent{}
	}
	return content
}
