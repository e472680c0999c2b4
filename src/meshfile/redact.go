package meshfile

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Messages about a file are logged, and show lines of it. Whatever may be a
// credential is taken out of those lines, although none belongs into the file.

var (
	userinfo = regexp.MustCompile(`://[^\s"]*@`) // passwords may have a / or @
	query    = regexp.MustCompile(`(://[^?\s"]*\?)[^\s"]*`)
	crossed  = regexp.MustCompile(string(cross) + "+")
)

// redact takes what may be credentials out of the addresses in a text, and
// shortens what is crossed out in it.
func redact(text []byte) []byte {
	text = crossed.ReplaceAll(text, []byte("…"))
	return query.ReplaceAll(userinfo.ReplaceAll(text, []byte("://…@")), []byte("$1…"))
}

// secretKeys are patterns of names whose values may be credentials, beside
// SecretEnv, in upper case.
var secretKeys = []string{"*AUTHORIZATION*", "HEADERS", "ENCRYPT", "ACL", "*KEY", "*PASS"}

func isSecretKey(name string) bool {
	name = strings.ReplaceAll(name, "-", "_")
	return matchesAny(SecretEnv, name) || matchesAny(secretKeys, name)
}

// hideCredentials takes out of the findings what may be credentials in the files that
// they are about.
func (d *Diagnostics) hideCredentials() {
	var hidden []string
	for name, file := range d.files {
		if file != nil && file.Bytes != nil {
			shown := *file
			text, secrets := crossOut(file.Bytes)
			shown.Bytes, hidden = text, append(hidden, secrets...)
			d.files[name] = &shown
		}
	}
	for _, diag := range d.List {
		if diag.Subject == nil {
			continue
		}
		about := *diag.Subject
		if diag.Context != nil {
			about = hcl.RangeOver(about, *diag.Context)
		}
		if file := d.files[about.Filename]; file != nil && !bytes.ContainsRune(about.SliceBytes(file.Bytes), cross) {
			continue
		}
		diag.Expression = nil // HCL would show the values of its variables
		for _, secret := range hidden {
			diag.Detail = strings.ReplaceAll(diag.Detail, secret, "…")
		}
	}
}

// cross stands in place of each byte that is crossed out, so that all others
// stay where they are.
const cross = '\x01'

// crossOut gives a file's text without what may be credentials, and what was
// there. It goes by words and brackets alone, since the file may be broken.
func crossOut(src []byte) (text []byte, hidden []string) {
	text = bytes.Clone(src)
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	isOneOf := func(i int, kinds []hclsyntax.TokenType) bool {
		if i < 0 || i >= len(tokens) {
			return slices.Contains(kinds, hclsyntax.TokenEOF)
		}
		return slices.Contains(kinds, tokens[i].Type)
	}
	const none = -1
	depth, secret := 0, none // secret is how deep the key stands whose value this is
	ofConditionals := colonsOfConditionals(tokens)
	assignsAt := func(i int) bool { return isOneOf(i, assigns) && !ofConditionals[i] }
	for i, token := range tokens {
		word, next := string(token.Bytes), i+1
		quote := 0 // how much deeper a key in quotes is than its value
		if token.Type == hclsyntax.TokenQuotedLit {
			quote, next = 1, i+2
		}
		named := assignsAt(next)
		begins := token.Type == hclsyntax.TokenIdent && isOneOf(i-1, beforeKey)
		isKey := named || token.Type == hclsyntax.TokenIdent && isOneOf(next, opens)
		switch {
		case isOneOf(i, opens):
			depth++
		case isOneOf(i, closes):
			if depth--; depth < secret {
				secret = none
			}
		case isOneOf(i, ends):
			if depth <= secret && !assignsAt(i-1) {
				secret = none
			}
		case secret == none && (named || begins) && isSecretKey(word):
			secret = depth - quote
		case secret != none && !isKey && !assignsAt(i) && !isConstant(word), tellsCredential(token):
			for at := token.Range.Start.Byte; at < token.Range.End.Byte; at++ {
				if text[at] != '\n' {
					text[at] = cross
				}
			}
			if word := strings.TrimSpace(word); len(word) > 3 {
				hidden = append(hidden, word)
			}
		}
		if token.Type == hclsyntax.TokenComment && depth <= secret && strings.HasSuffix(word, "\n") {
			secret = none
		}
	}
	return text, hidden
}

// colonsOfConditionals are the places of those colons that stand in c ? a : b.
func colonsOfConditionals(tokens hclsyntax.Tokens) map[int]bool {
	colons := map[int]bool{}
	open := []int{0} // question marks without their colons, by depth
	for i, token := range tokens {
		deepest := len(open) - 1
		switch {
		case slices.Contains(opens, token.Type):
			open = append(open, 0)
		case slices.Contains(closes, token.Type) && deepest > 0:
			open = open[:deepest]
		case token.Type == hclsyntax.TokenQuestion:
			open[deepest]++
		case token.Type == hclsyntax.TokenColon && open[deepest] > 0:
			open[deepest]--
			colons[i] = true
		}
	}
	return colons
}

var (
	assigns   = []hclsyntax.TokenType{hclsyntax.TokenEqual, hclsyntax.TokenColon}
	ends      = []hclsyntax.TokenType{hclsyntax.TokenNewline, hclsyntax.TokenComma}
	beforeKey = []hclsyntax.TokenType{hclsyntax.TokenEOF, hclsyntax.TokenNewline, hclsyntax.TokenComma, hclsyntax.TokenOBrace, hclsyntax.TokenComment}

	opens = []hclsyntax.TokenType{
		hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
		hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
	}
	closes = []hclsyntax.TokenType{
		hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
		hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd,
	}
)

func isConstant(word string) bool { return word == "true" || word == "false" || word == "null" }

// tellsCredential says that a comment or a string names what may be a
// credential, and says it. Addresses are redacted by themselves.
func tellsCredential(token hclsyntax.Token) bool {
	switch token.Type {
	case hclsyntax.TokenComment, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit:
	default:
		return false
	}
	text := string(token.Bytes)
	if !strings.ContainsAny(text, "=:") || strings.Contains(text, "://") {
		return false
	}
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-'
	}), isSecretKey)
}
