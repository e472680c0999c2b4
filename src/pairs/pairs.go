// Package pairs knows which Envoy goes with which Consul, for staging and for
// meshctl, which downloads nothing.
package pairs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Consul and Envoy are the versions that an app gets whose mesh.hcl names none,
// and those that this project's tests run. All other code takes them from here;
// a test compares them with manifest.yml and the documents.
const (
	Consul = "1.22.7"
	Envoy  = "1.38.2"
)

// pair is a line of the table.
type pair struct {
	consul    string // "1.22" for each of its patches, "1.22.7" for that one alone
	envoy     string // the default, a version or constraint in libbuildpack's syntax
	tested    []string
	supported []string
}

// table has the pairs. A line for one patch of Consul comes before the line for
// all others. The supported Envoys are HashiCorp's (Consul: Envoy integration,
// supported versions): the named patch of each Envoy and older patches of the same
// minor version. The tested ones are run by this project's integration tests.
var table = []pair{
	{consul: "1.22", envoy: Envoy, tested: []string{Envoy}, supported: []string{"1.35.9", "1.34.13", "1.33.14"}},
	{consul: "2.0", envoy: "1.37.2", supported: []string{"1.37.2", "1.36.6", "1.35.10", "1.34.14"}},
}

// EnvoyFor is the version of Envoy that goes with a version of Consul, empty
// where the table has none.
func EnvoyFor(consul string) string {
	found, _ := find(table, consul)
	return found.envoy
}

// Check says in one line what is wrong with running these versions
// together, empty where the pair is tested here or supported by HashiCorp.
func Check(consul, envoy string) string {
	found, known := find(table, consul)
	switch {
	case !known:
		return fmt.Sprintf("consul %s is not known to this buildpack, nor is an envoy that goes with it", consul)
	case found.allows(envoy):
		return ""
	}
	return fmt.Sprintf("envoy %s is neither listed by HashiCorp for consul %s nor tested with it here; envoy %s is",
		envoy, consul, found.envoy)
}

// find is the first line for a version of Consul.
func find(lines []pair, consul string) (pair, bool) {
	i := slices.IndexFunc(lines, func(p pair) bool { return p.consul == consul || p.consul == minor(consul) })
	if i < 0 {
		return pair{}, false
	}
	return lines[i], true
}

func (p pair) allows(envoy string) bool {
	return slices.Contains(p.tested, envoy) || slices.ContainsFunc(p.supported, func(supported string) bool {
		return minor(envoy) == minor(supported) && patch(envoy) <= patch(supported)
	})
}

// minor is "1.38" of "1.38.2".
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

func patch(version string) int {
	n, _ := strconv.Atoi(version[strings.LastIndex(version, ".")+1:])
	return n
}
