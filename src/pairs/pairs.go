// Package pairs knows which Envoy goes with which Consul, for staging and for
// meshctl, which downloads nothing.
package pairs

import (
	"fmt"
	"strconv"
	"strings"
)

// pairs has a line for each Consul. The supported ones are HashiCorp's (Consul: Envoy integration, supported
// versions): the named patch of each Envoy and older patches of the same minor
// version. The tested ones are run by this project's integration tests.
var pairs = []struct {
	consul    string // major.minor
	envoy     string // the default, a version or constraint in libbuildpack's syntax
	tested    []string
	supported []string
}{
	{consul: "1.22", envoy: "1.38.2", tested: []string{"1.38.2"}, supported: []string{"1.35.9", "1.34.13", "1.33.14"}},
	{consul: "2.0", envoy: "1.37.2", supported: []string{"1.37.2", "1.36.6", "1.35.10", "1.34.14"}},
}

// EnvoyFor is the version of Envoy that goes with a version of Consul, empty
// where the table has none.
func EnvoyFor(consul string) string {
	for _, pair := range pairs {
		if minor(consul) == pair.consul {
			return pair.envoy
		}
	}
	return ""
}

// Check says in one line what is wrong with running these versions
// together, empty where the pair is tested here or supported by HashiCorp.
func Check(consul, envoy string) string {
	for _, pair := range pairs {
		if minor(consul) != pair.consul {
			continue
		}
		for _, tested := range pair.tested {
			if envoy == tested {
				return ""
			}
		}
		for _, supported := range pair.supported {
			if minor(envoy) == minor(supported) && patch(envoy) <= patch(supported) {
				return ""
			}
		}
		return fmt.Sprintf("envoy %s is neither listed by HashiCorp for consul %s nor tested with it here; envoy %s is",
			envoy, consul, pair.envoy)
	}
	return fmt.Sprintf("consul %s is not known to this buildpack, nor is an envoy that goes with it", consul)
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
