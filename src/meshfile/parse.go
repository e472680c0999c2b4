package meshfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Name is the file's name at the top of an app, JSONName its name in HCL's JSON
// syntax.
const (
	Name     = "mesh.hcl"
	JSONName = "mesh.hcl.json"
)

// Reference is where the language is described, from the project's top.
const Reference = "docs/mesh-hcl.md"

// Diagnostics are what was found in one file, as an error or as warnings.
type Diagnostics struct {
	List  hcl.Diagnostics
	name  string
	files map[string]*hcl.File
}

// Error prints all diagnostics for a person: summary, file and line, the lines
// themselves, and a hint. No colour, 100 columns.
func (d *Diagnostics) Error() string {
	count := map[hcl.DiagnosticSeverity]int{}
	for _, diag := range d.List {
		count[diag.Severity]++
	}
	var parts []string
	for _, noun := range []struct {
		severity hcl.DiagnosticSeverity
		name     string
	}{{hcl.DiagError, "mistake"}, {hcl.DiagWarning, "warning"}} {
		switch n := count[noun.severity]; n {
		case 0:
		case 1:
			parts = append(parts, "1 "+noun.name)
		default:
			parts = append(parts, fmt.Sprintf("%d %ss", n, noun.name))
		}
	}
	var text bytes.Buffer
	for _, diag := range d.List {
		diag, files := legible(diag, d.files)
		// Writing to a buffer cannot fail.
		_ = hcl.NewDiagnosticTextWriter(&text, files, 100, false).WriteDiagnostic(diag)
	}
	return fmt.Sprintf("%s in %s\n\n%s", strings.Join(parts, ", "), d.name, redact(bytes.TrimSpace(text.Bytes())))
}

// Load reads and parses the mesh.hcl, or mesh.hcl.json, of the app in dir. A
// missing or unreadable file is an error that says what to add and where; a
// wrong one is a *Diagnostics. The warnings are nil where there are none.
func Load(dir string, context Context) (mesh *Mesh, warnings *Diagnostics, err error) {
	var found []string
	for _, name := range []string{Name, JSONName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil, fmt.Errorf("no %s at the top of the app: the mesh buildpack was asked for, "+
			"but does not know which service this app is\nhint: %s", Name, elsewhere(dir))
	case 2:
		return nil, nil, fmt.Errorf("the app has both %s and %s\nhint: remove one of them", Name, JSONName)
	}
	return LoadFile(filepath.Join(dir, found[0]), context)
}

// LoadFile is Load for a file of any name; one that ends in .json has HCL's
// JSON syntax.
func LoadFile(path string, context Context) (mesh *Mesh, warnings *Diagnostics, err error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to read %s: %w\nhint: it must be a plain file that everyone may read",
			filepath.Base(path), withoutPath(err))
	}
	return Parse(filepath.Base(path), src, context)
}

// withoutPath is the reason of a failed file operation.
func withoutPath(err error) error {
	var failed *os.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// Parse turns the text of a mesh.hcl into a Mesh with its defaults filled in.
// The error is a *Diagnostics with everything that is wrong, warnings
// included; the warnings of a good file are nil where there are none.
func Parse(filename string, src []byte, context Context) (mesh *Mesh, warnings *Diagnostics, err error) {
	if err := readable(filename, src); err != nil {
		return nil, nil, err
	}
	parser := hclparse.NewParser()
	parse, firstMistake := parser.ParseHCL, firstMistake
	if strings.HasSuffix(filename, ".json") {
		parse, firstMistake = parser.ParseJSON, firstJSONMistake
		src = bytes.TrimPrefix(src, []byte(byteOrderMark)) // HCL does so for its own syntax
	}
	file, diags := parse(src, filename)
	mesh = &Mesh{}
	if diags.HasErrors() {
		diags = hcl.Diagnostics{firstMistake(diags, src)}
	} else {
		body, scope, problems := context.under(file.Body, mesh)
		d := &decoder{scope: scope}
		d.body(body, reflect.ValueOf(mesh).Elem())
		mesh.fillDefaults()
		v := &validator{incomplete: problems.HasErrors() || d.incomplete, whole: hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}}
		v.mesh(mesh)
		diags = slices.Concat(diags, problems, d.diags, v.diags)
	}
	found := &Diagnostics{List: tidy(diags), name: filename, files: parser.Files()}
	if context.Defaults != nil {
		name, file := context.Defaults.name, context.Defaults.file
		found.name, found.files[name] = found.name+" with "+name, file
	}
	if len(found.List) > 0 {
		found.hideCredentials()
	}
	switch {
	case found.List.HasErrors():
		return nil, nil, found
	case len(found.List) > 0:
		return mesh, found, nil
	}
	return mesh, nil, nil
}

// firstMistake is the one to show of a text that is not HCL: after it the parser
// has lost its way. Of one line HCL finds first what is wrong with a character,
// which explains the rest; a string that goes on in the next line explains nothing.
func firstMistake(diags hcl.Diagnostics, src []byte) *hcl.Diagnostic {
	first := slices.MinFunc(diags, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(start(a).Line-start(b).Line, lines(a)-lines(b))
	})
	if first.Subject != nil && isTemplateInLabel(src, first.Subject.Start) {
		first.Detail = "A label is plain text. An expression can stand in name of a service, and in service of an upstream."
	}
	return first
}

// isTemplateInLabel says that a block's label has a template at a place.
func isTemplateInLabel(src []byte, at hcl.Pos) bool {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	i := slices.IndexFunc(tokens, func(token hclsyntax.Token) bool { return token.Range.Start.Byte == at.Byte })
	if i < 0 || tokens[i].Type != hclsyntax.TokenTemplateInterp && tokens[i].Type != hclsyntax.TokenTemplateControl {
		return false
	}
	for i--; i > 0 && tokens[i].Type == hclsyntax.TokenQuotedLit; i-- {
	}
	return i > 0 && tokens[i].Type == hclsyntax.TokenOQuote &&
		(tokens[i-1].Type == hclsyntax.TokenIdent || tokens[i-1].Type == hclsyntax.TokenCQuote)
}

// tidy sorts the diagnostics by line, and keeps the first of several about one
// place: what follows from a wrong type is noise.
func tidy(diags hcl.Diagnostics) hcl.Diagnostics {
	seen := map[int]hcl.Diagnostics{}
	var kept hcl.Diagnostics
	for _, diag := range diags {
		if diag.Summary == "Call to unknown function" { // HCL's own words
			diag.Detail += " These are: " + strings.Join(slices.Sorted(maps.Keys(functions())), ", ") + "."
		}
		diag.Detail = string(redact([]byte(diag.Detail)))
		if diag.Subject == nil {
			kept = append(kept, diag)
			continue
		}
		// Compared within one line: the rest of a file cannot overlap it.
		at := diag.Subject.Start.Line
		repeated := slices.ContainsFunc(seen[at], func(earlier *hcl.Diagnostic) bool {
			// A warning hides no mistake.
			return earlier.Severity <= diag.Severity && diag.Subject.Overlaps(*earlier.Subject)
		})
		if !repeated {
			kept = append(kept, diag)
			seen[at] = append(seen[at], diag)
		}
	}
	slices.SortStableFunc(kept, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(start(a).Line-start(b).Line, start(a).Column-start(b).Column)
	})
	return kept
}

func start(diag *hcl.Diagnostic) hcl.Pos {
	if diag.Subject == nil {
		return hcl.Pos{}
	}
	return diag.Subject.Start
}

// firstJSONMistake is firstMistake for HCL's JSON syntax.
func firstJSONMistake(diags hcl.Diagnostics, _ []byte) *hcl.Diagnostic {
	return slices.MinFunc(diags, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(start(a).Line-start(b).Line, start(a).Column-start(b).Column)
	})
}

// lines is how many more lines than one a diagnostic is about.
func lines(diag *hcl.Diagnostic) int {
	if diag.Subject == nil {
		return 0
	}
	return diag.Subject.End.Line - diag.Subject.Start.Line
}
