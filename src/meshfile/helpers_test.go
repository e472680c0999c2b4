package meshfile

import (
	"reflect"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// withoutPlaces compares meshes by what they say, not by where.
func withoutPlaces() []cmp.Option {
	return []cmp.Option{
		cmpopts.IgnoreTypes(hcl.Range{}),
		cmp.FilterPath(func(p cmp.Path) bool {
			return p.Last().Type() == reflect.TypeFor[hcl.Body]()
		}, cmp.Ignore()),
		cmp.Comparer(func(a, b cty.Value) bool {
			if a == cty.NilVal || b == cty.NilVal {
				return a == b
			}
			return a.RawEquals(b)
		}),
	}
}
