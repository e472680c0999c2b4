// Package registry makes an instance and its services known to Consul and keeps them
// so, by an agent (ViaAgent) or by the servers themselves (viaServers).
package registry

import (
	"context"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// Registry is where an instance makes its services known, and who tells its
// Envoys what to do. Everything else of an instance's life is the same whoever
// is asked: the local agent (ViaAgent), or the servers themselves (viaServers).
type Registry interface {
	// Steps are waited for before anything is registered.
	Steps(ctx context.Context) ([]wait.Step, error)
	// Register makes a service and its sidecar known, or gives up after some
	// seconds. The state of what was said before is kept; before anything was, the
	// sidecar is out of rotation.
	Register(ctx context.Context, r *Registration) error
	// HandOver has the app's checks, which it has just passed, decide from now
	// on.
	HandOver(ctx context.Context, r *Registration) error
	// Say tells how the sidecar's ready check is.
	Say(ctx context.Context, r *Registration, status, output string) error
	// deregister takes a service and its sidecar out of the catalog. One that is
	// not there is fine.
	deregister(ctx context.Context, r *Registration) error
	// Bootstrap is the configuration that an Envoy starts with, as JSON.
	Bootstrap(ctx context.Context, r *Registration) ([]byte, error)
	// Keep has the services stay registered until ctx ends.
	Keep(ctx context.Context)
	// TakeTokens has the services go on with the tokens of now.
	TakeTokens(ctx context.Context) error
	// TakeCA has another CA be in use.
	TakeCA(ctx context.Context, ca string) error
	// Logout ends a login when the instance is out of rotation, unless Leave does.
	Logout()
	// Leave takes away what deregistering leaves of the instance. ctx ends when the
	// platform stops the instance.
	Leave(ctx context.Context)

	// CheckStatuses lists how the checks are of a service and its sidecar.
	CheckStatuses(ctx context.Context, r *Registration) ([]consul.CheckStatus, error)
	// Notes are what whoever looks at an instance should know, though it works.
	Notes() []string
	// Problems are the likely causes where no leader is known, for that reason.
	Problems(ctx context.Context, seen string) []string
}
