package meshfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Name is the file's name at the top of an app.
const Name = "mesh.hcl"

// Reference is where the language is described, from the project's top.
const Reference = "docs/mesh-hcl.md"

// Error holds every mistake found in one mesh.hcl.
type Error struct {
	Diagnostics hcl.Diagnostics
	files       map[string]*hcl.File
}

// Error prints all diagnostics for a person: summary, file and line, the lines
// themselves, and a hint. No colour, 100 columns.
func (e *Error) Error() string {
	var text bytes.Buffer
	// Writing to a buffer cannot fail.
	_ = hcl.NewDiagnosticTextWriter(&text, e.files, 100, false).WriteDiagnostics(e.Diagnostics)
	noun := "mistake"
	if len(e.Diagnostics) != 1 {
		noun = "mistakes"
	}
	return fmt.Sprintf("%d %s in %s\n\n%s", len(e.Diagnostics), noun, Name, bytes.TrimSpace(text.Bytes()))
}

// Load reads and parses the mesh.hcl of the app in dir. A missing or
// unreadable file is an error that says what to add and where; a wrong one is
// an *Error.
func Load(dir string) (*Mesh, error) {
	src, err := os.ReadFile(filepath.Join(dir, Name))
	switch {
	case os.IsNotExist(err):
		return nil, fmt.Errorf("no %s at the top of the app: the mesh buildpack was asked for, "+
			"but does not know which service this app is\n"+
			"hint: add a file %s beside the app's other files, the smallest is one line: service \"my-app\" {}", Name, Name)
	case err != nil:
		return nil, fmt.Errorf("failed to read %s: %w\nhint: it must be a plain file that everyone may read", Name, err)
	}
	return Parse(Name, src)
}

// Parse turns the text of a mesh.hcl into a Mesh with its defaults filled in,
// or returns an *Error with everything that is wrong. The filename is for the
// messages alone.
func Parse(filename string, src []byte) (*Mesh, error) {
	parser := hclparse.NewParser()
	file, diags := parser.ParseHCL(src, filename)
	mesh := &Mesh{}
	if !diags.HasErrors() {
		diags = append(diags, gohcl.DecodeBody(file.Body, nil, mesh)...)
		mesh.fillDefaults()
		diags = append(diags, mesh.validate(hcl.Range{
			Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos,
		})...)
	}
	if diags.HasErrors() {
		return nil, &Error{Diagnostics: explain(diags), files: parser.Files()}
	}
	mesh.assignPorts()
	return mesh, nil
}

// explain sorts the diagnostics by line, keeps the first of several about one
// place (what follows from a wrong type is noise), and adds the place in the
// reference to HCL's own words about unknown names.
func explain(diags hcl.Diagnostics) hcl.Diagnostics {
	var kept hcl.Diagnostics
	for _, diag := range diags {
		repeated := slices.ContainsFunc(kept, func(earlier *hcl.Diagnostic) bool {
			return diag.Subject != nil && earlier.Subject != nil && diag.Subject.Overlaps(*earlier.Subject)
		})
		if !repeated {
			kept = append(kept, diag)
		}
	}
	slices.SortStableFunc(kept, func(a, b *hcl.Diagnostic) int { return line(a) - line(b) })
	for _, diag := range kept {
		switch diag.Summary {
		case "Unsupported argument", "Unsupported block type", "Missing required argument":
			diag.Detail += " The whole language is described in " + Reference + "."
		}
	}
	return kept
}

func line(diag *hcl.Diagnostic) int {
	if diag.Subject == nil {
		return 0
	}
	return diag.Subject.Start.Line
}
