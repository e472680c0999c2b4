package main

import "errors"

// failure is one of Cloud Foundry's messages, in its own words.
type failure string

func (f failure) Error() string { return string(f) }

const (
	cloneFailed    = failure("Failed to clone git repository")
	setUpFailed    = failure("Failed to set up filesystem when generating droplet")
	copyFailed     = failure("Failed to copy compiled droplet")
	detectFailed   = failure("None of the buildpacks detected a compatible application")
	compileFailed  = failure("Failed to compile droplet")
	releaseFailed  = failure("Failed to build droplet release")
	supplyFailed   = failure("Failed to run all supply scripts")
	noSupply       = failure("Error: one of the buildpacks chosen to supply dependencies does not support multi-buildpack apps")
	finalizeFailed = failure("Failed to run finalize script")
	procfileFailed = failure("Failed to read command from Procfile")
)

// missingFinalize is only a warning.
const missingFinalize = "Warning: the last buildpack is not compatible with multi-buildpack apps and cannot make use of any dependencies supplied by the buildpacks specified before it"

// exitCode is by the first failure that is in err, in this order: a failed
// finalize is inside a failed compile and so is 223.
func exitCode(err error) int {
	for _, exit := range []struct {
		failure
		code int
	}{
		{detectFailed, 222},
		{compileFailed, 223},
		{releaseFailed, 224},
		{supplyFailed, 225},
		{noSupply, 225},
		{finalizeFailed, 226},
	} {
		if errors.Is(err, exit.failure) {
			return exit.code
		}
	}
	return 1
}
