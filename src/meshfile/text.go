package meshfile

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcled"
)

// byteOrderMark is what some editors begin a text in UTF-8 with.
const byteOrderMark = "\xef\xbb\xbf"

// sizeLimit is far more than a person writes, in bytes.
const sizeLimit = 1 << 20

// readable says what of a file makes it no text to look for mistakes in, nil where it
// is one.
func readable(name string, src []byte) error {
	whole := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
	diag := &hcl.Diagnostic{Severity: hcl.DiagError, Subject: &whole}
	switch {
	case len(src) > sizeLimit:
		diag.Summary, diag.Detail = "Too long", fmt.Sprintf("It has %d bytes, and may have %d. Is it another file under this name?", len(src), sizeLimit)
	case isUTF16(src):
		diag.Summary, diag.Detail = "Text in UTF-16", "Save it as UTF-8."
	default:
		return nil
	}
	return &Diagnostics{List: hcl.Diagnostics{diag}, name: name}
}

// isUTF16 says that a text has a byte-order mark of UTF-16, or is one without: every
// second byte of Latin letters is zero.
func isUTF16(src []byte) bool {
	if bytes.HasPrefix(src, []byte("\xff\xfe")) || bytes.HasPrefix(src, []byte("\xfe\xff")) {
		return true
	}
	const looked = 16
	zeros := [2]int{}
	for i, b := range src[:min(looked, len(src))] {
		if b == 0 {
			zeros[i%2]++
		}
	}
	return len(src) >= looked && (zeros[0] == looked/2 && zeros[1] == 0 || zeros[1] == looked/2 && zeros[0] == 0)
}

// shownLine is how much of a line is shown, in bytes.
const shownLine = 160

// legible is a diagnostic, and the files to show it with, in which its lines are as
// they can be read: of a long one what is around the place, and characters that a
// terminal would obey are escaped.
func legible(diag *hcl.Diagnostic, files map[string]*hcl.File) (*hcl.Diagnostic, map[string]*hcl.File) {
	if diag.Subject == nil || files[diag.Subject.Filename] == nil {
		return diag, files
	}
	src := files[diag.Subject.Filename].Bytes
	at := diag.Subject.Start
	begin := bytes.LastIndexByte(src[:min(at.Byte, len(src))], '\n') + 1
	line := src[begin:]
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	if len(line) <= shownLine && bytes.IndexFunc(line, isOdd) < 0 {
		return diag, files
	}
	// What may be a credential is taken out first: a part of one is not recognised.
	column := len(redact(line[:min(at.Byte-begin, len(line))]))
	line = redact(line)
	column = min(column, len(line))
	from, to := max(0, column-shownLine/2), min(len(line), column+shownLine/2)
	shown := escaped(line[from:to])
	if from > 0 {
		shown = "… " + shown
	}
	if to < len(line) {
		shown += " …"
	}
	blank := strings.Repeat("\n", at.Line-1)
	start := hcl.Pos{Line: at.Line, Column: 1, Byte: len(blank)}
	whole := hcl.Range{Filename: diag.Subject.Filename, Start: start, End: hcl.Pos{Line: at.Line, Column: len(shown) + 1, Byte: len(blank) + len(shown)}}
	cut := *diag
	cut.Subject, cut.Context, cut.Expression, cut.EvalContext = &whole, nil, nil, nil
	cut.Detail = fmt.Sprintf("%s (At column %d.)", escaped([]byte(diag.Detail)), at.Column)
	block := hcled.ContextString(files[diag.Subject.Filename], at.Byte)
	return &cut, map[string]*hcl.File{whole.Filename: {Bytes: []byte(blank + shown), Nav: inBlock(block)}}
}

// inBlock names the block that a diagnostic is in.
type inBlock string

// ContextString is what HCL asks of a file's Nav.
func (b inBlock) ContextString(int) string { return string(b) }

// isOdd says that a character is none of a text. What hides credentials is one.
func isOdd(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) && !strings.ContainsRune("\t\r\n"+string(cross), r)
}

// escaped is a text without what a terminal would obey.
func escaped(text []byte) string {
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if isOdd(r) {
			out.WriteString(strings.Trim(strconv.QuoteToASCII(string(text[:size])), `"`))
		} else {
			out.Write(text[:size])
		}
		text = text[size:]
	}
	return out.String()
}

// looked bounds how many files and how deep are looked at for one that has another
// name or place.
const (
	lookedFiles = 20_000
	lookedDeep  = 4
)

// elsewhere says what to do where the app has no mesh.hcl at its top.
func elsewhere(dir string) string {
	var found []string
	files := 0
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error { // a hint needs no error
		relative, _ := filepath.Rel(dir, path)
		if files++; files > lookedFiles || len(found) == 3 {
			return filepath.SkipAll
		}
		switch name := strings.ToLower(filepath.Base(path)); {
		case err != nil:
			return fs.SkipDir
		case entry.IsDir() && (strings.Count(relative, "/") >= lookedDeep || name == "node_modules" || name == ".git"):
			return fs.SkipDir
		case !entry.IsDir() && slices.Contains([]string{Name, JSONName, Name + ".txt", JSONName + ".txt", "mesh.json"}, name):
			found = append(found, relative)
		}
		return nil
	})
	switch {
	case len(found) == 0:
		return fmt.Sprintf("add a file %s beside the app's other files, the smallest is one line: service \"my-app\" {}", Name)
	case strings.HasPrefix(found[0], "BOOT-INF/classes/"):
		return fmt.Sprintf("there is %s: it belongs to the top of the jar, where `jar uf APP.jar %s` puts it", found[0], Name)
	case strings.Contains(found[0], "/"):
		return fmt.Sprintf("there is %s: it belongs to the top of what is pushed; cf push -p %s pushes that folder", strings.Join(found, ", "), filepath.Dir(found[0]))
	}
	return fmt.Sprintf("there is %s: its name has to be %s", strings.Join(found, ", "), Name)
}
