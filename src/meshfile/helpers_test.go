package meshfile

import (
	"net/netip"
	"reflect"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"
)

// withoutPlaces compares meshes by what they say, not by where.
func withoutPlaces() []cmp.Option {
	return []cmp.Option{
		cmpopts.IgnoreTypes(hcl.Range{}),
		cmpopts.EquateComparable(Duration{}, netip.Addr{}, netip.AddrPort{}),
		cmp.FilterPath(func(p cmp.Path) bool {
			return p.Last().Type() == reflect.TypeFor[hcl.Body]()
		}, cmp.Ignore()),
	}
}
