package runtime

import "context"

// registry is where an instance makes its services known, and who tells its
// Envoys what to do. Everything else of an instance's life is the same whoever
// is asked: the local agent (viaAgent), or the servers themselves (viaServers).
type registry interface {
	// stages are waited for before anything is registered.
	stages(ctx context.Context) ([]stage, error)
	// register makes a service and its sidecar known, or gives up after some
	// seconds. The state of what was said before is kept; before anything was, the
	// sidecar is out of rotation.
	register(ctx context.Context, r *registration) error
	// handOver has the app's checks, which it has just passed, decide from now
	// on.
	handOver(ctx context.Context, r *registration) error
	// say tells how the sidecar's ready check is.
	say(ctx context.Context, r *registration, status, output string) error
	// deregister takes a service and its sidecar out of the catalog. One that is
	// not there is fine.
	deregister(ctx context.Context, r *registration) error
	// bootstrap is the configuration that an Envoy starts with, as JSON.
	bootstrap(ctx context.Context, r *registration) ([]byte, error)
	// keep has the services stay registered until ctx ends.
	keep(ctx context.Context)
	// leave takes away what deregistering leaves of the instance. early says
	// that the platform has not stopped it, which then ctx tells.
	leave(ctx context.Context, early bool)

	// checks lists the checks of a service and its sidecar.
	checks(ctx context.Context, r *registration) ([]CheckStatus, error)
	// problems are the likely causes where no leader is known, for s.
	problems(ctx context.Context, s Status) []string
}
