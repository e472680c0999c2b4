package registry

import (
	"fmt"
)

// MissingPolicy asks for a network policy, which is what a connection most often lacks
// that nobody answers. ports are those that it has to allow, with their protocols.
func MissingPolicy(from, to, ports string) string {
	return fmt.Sprintf("is there a network policy from %s to %s for %s?", from, to, ports)
}
