package meshfile

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	gocmp "github.com/google/go-cmp/cmp"
)

// section is a block of the language in the reference.
type section struct {
	Title, Doc string
	Attributes []row
}

type row struct{ Name, Type, Without, Doc string }

// keyRow is one of Consul's own keys in the reference.
type keyRow struct{ Name, Value, Listens, Hatch string }

func keyRows(keys map[string]opaqueKey) (rows []keyRow) {
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		k := keys[name]
		row := keyRow{Name: name, Value: words[k.is]}
		if k.listens != nil {
			row.Listens = "yes"
		}
		if k.hatch {
			row.Hatch = "yes"
		}
		rows = append(rows, row)
	}
	return rows
}

// TestReference: docs/mesh-hcl.md is what the schema says.
func TestReference(t *testing.T) {
	t.Parallel()
	var sections []section
	var walk func(block *Block, path []string)
	walk = func(block *Block, path []string) {
		if block.Name != "" {
			path = append(path, block.Name)
		}
		described := describeBlock(block, path)
		for _, earlier := range sections {
			if len(earlier.Attributes) > 0 && reflect.DeepEqual(earlier.Attributes, described.Attributes) {
				described.Attributes = nil
				described.Doc += " With the attributes of " + earlier.Title + "."
			}
		}
		sections = append(sections, described)
		for _, inner := range block.Blocks {
			walk(inner, slices.Clone(path))
		}
	}
	walk(Schema(), nil)
	// What stands outside of all blocks is the least interesting.
	sections = append(sections[1:], sections[0])

	var text bytes.Buffer
	parsed := template.Must(template.ParseFiles("testdata/reference.md.tmpl"))
	err := parsed.Execute(&text, map[string]any{
		"Blocks": sections, "Variables": AppVariables,
		"Functions": Functions, "Foreign": Foreign,
		"Sidecar": keyRows(sidecarKeys), "Upstream": keyRows(upstreamKeys),
		"Secret": code(SecretEnv), "Instance": code(InstanceEnv),
	})
	if err != nil {
		t.Fatal(err)
	}
	const path = "../../" + Reference
	if *update {
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(text.String(), string(have)); diff != "" {
		t.Errorf("%s is not what make golden writes (-schema +file):\n%s", Reference, diff)
	}
}

func describeBlock(block *Block, path []string) section {
	title := "Outside of all blocks"
	if len(path) > 0 {
		title = "`" + path[len(path)-1] + "`"
		if block.Label != "" {
			title += " \"" + strings.ToUpper(block.Label) + "\""
		}
		if len(path) > 1 {
			title += ", in `" + strings.Join(path[:len(path)-1], " ") + "`"
		}
	}
	s := section{Title: title, Doc: cmp.Or(block.Doc, "What concerns all services.")}
	if len(block.Labels) > 0 {
		s.Doc += " " + strings.ToUpper(block.Label) + " is one of " + code(block.Labels) + "."
	}
	for _, a := range block.Attributes {
		r := row{Name: a.Name, Type: a.Type, Doc: a.Doc}
		switch {
		case a.Required:
			r.Without = "**required**"
		case a.Default != "":
			r.Without = fmt.Sprintf("`%s`", a.Default)
			if a.Type == "string" {
				r.Without = fmt.Sprintf("`\"%s\"`", a.Default)
			}
		default:
			r.Without = a.Without
		}
		if len(a.Values) > 0 {
			r.Doc += " One of " + code(a.Values) + "."
		}
		s.Attributes = append(s.Attributes, r)
	}
	return s
}

func code(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }
