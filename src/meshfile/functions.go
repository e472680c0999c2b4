package meshfile

import (
	"regexp"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Functions that expressions can call: those of HCL's own standard library that make
// sense for names, lists and metadata, and slug. An example is an expression and what
// it gives.
var Functions = []struct {
	Name, Doc      string
	Example, Gives string
	function       function.Function
}{
	{"coalesce", "the first argument that is not null. Empty text is not null: Terraform's goes on to the next there, this does not", `coalesce(null, "a")`, `"a"`, stdlib.CoalesceFunc},
	{"concat", "lists, one after the other", `concat(["a"], ["b"])`, `["a", "b"]`, stdlib.ConcatFunc},
	{"contains", "whether a list has a value", `contains(["a", "b"], "a")`, `true`, stdlib.ContainsFunc},
	{"format", "text with values in it, as Go's fmt has it", `format("%s-%02d", "a", 7)`, `"a-07"`, stdlib.FormatFunc},
	{"join", "a list's texts with one between them", `join("-", ["a", "b"])`, `"a-b"`, stdlib.JoinFunc},
	{"jsonencode", "a value as JSON", `jsonencode({ a = 1 })`, `"{\"a\":1}"`, stdlib.JSONEncodeFunc},
	{"keys", "a map's keys, sorted", `keys({ b = 1, a = 2 })`, `["a", "b"]`, stdlib.KeysFunc},
	{"length", "how many elements a list or a map has. Of text it is `strlen`, where Terraform has one name for both", `length(["a", "b"])`, `2`, stdlib.LengthFunc},
	{"lower", "text in lower case", `lower("Shop")`, `"shop"`, stdlib.LowerFunc},
	{"merge", "maps together; of one key the last counts", `merge({ a = "1" }, { b = "2" })`, `{"a" = "1", "b" = "2"}`, stdlib.MergeFunc},
	{"regex", "what a pattern (RE2) finds first, and a mistake where it finds nothing", `regex("[0-9]+", "v12")`, `"12"`, stdlib.RegexFunc},
	{"regex_replace", "text with everything replaced that a pattern (RE2) finds. Terraform's `replace` takes a pattern between slashes instead", `regex_replace("a1b22", "[0-9]+", "-")`, `"a-b-"`, stdlib.RegexReplaceFunc},
	{"replace", "text with another replaced, never by a pattern", `replace("a.b", ".", "-")`, `"a-b"`, stdlib.ReplaceFunc},
	{"slug", "a name that DNS takes: lower case, a dash for everything else than letters and digits, at most 63 characters", `slug("Dev Team_1 (EU)")`, `"dev-team-1-eu"`, slugFunc},
	{"split", "the parts of a text between others", `split(",", "a,b")`, `["a", "b"]`, stdlib.SplitFunc},
	{"strlen", "how many characters a text has", `strlen("shop")`, `4`, stdlib.StrlenFunc},
	{"substr", "a part of a text: from where, how long", `substr("shop", 0, 2)`, `"sh"`, stdlib.SubstrFunc},
	{"trimprefix", "text without how it begins", `trimprefix("dev-shop", "dev-")`, `"shop"`, stdlib.TrimPrefixFunc},
	{"trimspace", "text without blanks at both ends", `trimspace(" a ")`, `"a"`, stdlib.TrimSpaceFunc},
	{"trimsuffix", "text without how it ends", `trimsuffix("shop-dev", "-dev")`, `"shop"`, stdlib.TrimSuffixFunc},
	{"upper", "text in upper case", `upper("shop")`, `"SHOP"`, stdlib.UpperFunc},
	{"values", "a map's values, by its sorted keys", `values({ b = 1, a = 2 })`, `[2, 1]`, stdlib.ValuesFunc},
}

// functions are Functions by their names.
func functions() map[string]function.Function {
	all := map[string]function.Function{}
	for _, f := range Functions {
		all[f.Name] = f.function
	}
	return all
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// longestLabel is that of a name's part in DNS (RFC 1035, 2.3.4).
const longestLabel = 63

var slugFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "text", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(args[0].AsString()), "-"), "-")
		return cty.StringVal(strings.TrimRight(name[:min(longestLabel, len(name))], "-")), nil
	},
})
