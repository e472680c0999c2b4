package meshfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Name is the file's name at the top of an app, JSONName that of its other
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
	// Writing to a buffer cannot fail.
	_ = hcl.NewDiagnosticTextWriter(&text, d.files, 100, false).WriteDiagnostics(d.List)
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
			"but does not know which service this app is\n"+
			"hint: add a file %s beside the app's other files, the smallest is one line: service \"my-app\" {}", Name, Name)
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
	parser := hclparse.NewParser()
	parse := parser.ParseHCL
	if strings.HasSuffix(filename, ".json") {
		parse = parser.ParseJSON
	}
	file, diags := parse(src, filename)
	mesh = &Mesh{}
	if diags.HasErrors() {
		// After the first the parser has lost its way.
		diags = hcl.Diagnostics{slices.MinFunc(diags, func(a, b *hcl.Diagnostic) int {
			return cmp.Or(start(a).Line-start(b).Line, vague[a.Summary]-vague[b.Summary], start(a).Column-start(b).Column)
		})}
	} else {
		scope, problems := context.scope(file.Body, mesh)
		diags = append(diags, problems...)
		diags = append(diags, gohcl.DecodeBody(file.Body, scope, mesh)...)
		v := &validator{broken: diags.HasErrors(), whole: hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}}
		v.checkValues(reflect.ValueOf(mesh).Elem(), file.Body)
		v.mesh(mesh)
		diags = append(diags, v.diags...)
	}
	found := &Diagnostics{List: explain(diags), name: filename, files: parser.Files()}
	if len(found.List) > 0 {
		found.hideCredentials(src)
	}
	switch {
	case found.List.HasErrors():
		return nil, nil, found
	case len(found.List) > 0:
		return mesh, found, nil
	}
	return mesh, nil, nil
}

// explain sorts the diagnostics by line, keeps the first of several about one
// place (what follows from a wrong type is noise), and words what HCL says in
// the terms of the file.
func explain(diags hcl.Diagnostics) hcl.Diagnostics {
	seen := map[int]hcl.Diagnostics{}
	var kept hcl.Diagnostics
	for _, diag := range diags {
		if diag.Detail == "Unsuitable value: value must be known" {
			continue // it follows from a mistake in the expression
		}
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
	for _, diag := range kept {
		for _, w := range wordings {
			diag.Detail = w.said.ReplaceAllString(diag.Detail, w.better)
		}
		diag.Detail = string(redact([]byte(diag.Detail)))
		switch diag.Summary {
		case "Unsupported argument", "Unsupported block type", "Missing required argument", "Extraneous JSON object property":
			if name := quoted.FindStringSubmatch(diag.Detail); name != nil && foreign[name[1]] != "" {
				diag.Detail += " " + foreign[name[1]]
			}
			diag.Detail += " The whole language is described in " + Reference + "."
		}
	}
	return kept
}

// vague are the mistakes in the syntax that follow from a clearer one on the
// same line.
var vague = map[string]int{"Argument or block definition required": 1}

// wordings put what HCL says of its own types in an author's words.
var wordings = []struct {
	said   *regexp.Regexp
	better string
}{
	{regexp.MustCompile(`^Unsuitable value: value must be a whole number, .*`), "A whole number is required."},
	{regexp.MustCompile(`^Unsuitable value: a number is required$`), "A number is required."},
	{regexp.MustCompile(`^Unsuitable value: a bool is required$`), "true or false is required, without quotes."},
	{regexp.MustCompile(`^Unsuitable value: null value is not allowed$`), "null is no value here. Leave it out."},
	{regexp.MustCompile(`^Unsuitable value: (element ".*": )?(.*) required, but have tuple$`), "$1$2 required, but this is a list."},
	{regexp.MustCompile(`^Unsuitable value: (element ".*": )?(.*) required, but have (.*)$`), "$1$2 required, but this is of the type $3."},
	{regexp.MustCompile(`^Unsuitable value: (.*)$`), "$1."},
	{regexp.MustCompile(`^Template sequences are not allowed in this string\..*`), "A label is plain text. An expression can stand in name of a service, and in service of an upstream."},
	{regexp.MustCompile(`^All (\S+) blocks must have 1 labels \((\S+)\)\.$`), `The $2 stands before the brace: $1 "…" { … }`},
	{regexp.MustCompile(`^Only 1 labels \((\S+)\) are expected for (\S+) blocks\.$`), `It has one, the $1: $2 "…" { … }`},
}

var quoted = regexp.MustCompile(`"([^"]+)"`)

// foreign are names of Consul's own definitions, with what to say here.
var foreign = map[string]string{
	"connect":                theSidecar,
	"sidecar_service":        theSidecar,
	"proxy":                  theSidecar,
	"upstreams":              `Each is a block of its service: upstream "NAME" {}.`,
	"destination_name":       "It is service here.",
	"local_bind_address":     "It is address here.",
	"local_bind_port":        "It is port here.",
	"local_bind_socket_path": "It is socket here.",
	"checks":                 `Each is a block: check "NAME" { … }.`,
	"alias_service":          "It is alias here.",
	"args":                   noScripts,
	"script":                 noScripts,
	"docker_container_id":    noScripts,
	"token":                  "Credentials come from a bound service.",
	"tokens":                 "Credentials come from a bound service.",
	"encrypt":                "Credentials come from a bound service.",
	"dns":                    "Consul's DNS is not served in the container. An upstream is found on loopback.",
	"https":                  noSuchPort,
	"grpc_tls":               noSuchPort,
	"serf_wan":               noSuchPort,
	"server":                 noSuchPort,
}

const (
	theSidecar = "Every service has a sidecar. What there is to say of it stands in sidecar {}, and upstreams in the service."
	noScripts  = "Programs are not run for a check here. Use http, tcp, grpc or ttl."
	noSuchPort = "The container's agent listens on http, grpc and serf_lan alone."
)

func start(diag *hcl.Diagnostic) hcl.Pos {
	if diag.Subject == nil {
		return hcl.Pos{}
	}
	return diag.Subject.Start
}
