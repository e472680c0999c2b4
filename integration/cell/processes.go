package cell

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const defaultHealthTimeout = 60 * time.Second

// plan is what one instance runs: the process first, then its sidecars.
func (r *RunningApp) plan(d *Droplet, processType string, index int) []*watched {
	command := d.ProcessTypes[processType]
	if processType == webProcess && r.app.Command != "" {
		command = r.app.Command
	}
	sidecars := r.sidecars(d, processType)
	memory := r.app.Memory
	for _, s := range sidecars {
		memory -= s.Memory
	}
	label := "APP/PROC/" + strings.ToUpper(processType)
	plan := []*watched{{
		name:    strings.ToUpper(processType),
		label:   fmt.Sprintf("%s/%d", label, index),
		command: command,
		env:     r.cell.environment(r.app, processType, memory),
	}}
	for _, s := range sidecars {
		memory := s.Memory
		if memory == 0 {
			memory = r.app.Memory
		}
		plan = append(plan, &watched{
			name:    s.Name,
			label:   fmt.Sprintf("%s/SIDECAR/%s/%d", label, strings.ToUpper(s.Name), index),
			command: s.Command,
			env:     r.cell.environment(r.app, processType, memory),
		})
	}
	return plan
}

// sidecars of a process type: the buildpacks' and the user's own, which replace
// those of the same name.
func (r *RunningApp) sidecars(d *Droplet, processType string) (all []Sidecar) {
	own := func(name string) bool {
		return slices.ContainsFunc(r.app.Sidecars, func(s Sidecar) bool { return s.Name == name })
	}
	for _, s := range d.Sidecars {
		if slices.Contains(s.ProcessTypes, processType) && !own(s.Name) {
			all = append(all, s)
		}
	}
	for _, s := range r.app.Sidecars {
		if slices.Contains(s.ProcessTypes, processType) {
			all = append(all, s)
		}
	}
	return all
}

// checkMemory refuses, as the platform does, sidecars that leave the process
// nothing.
func (r *RunningApp) checkMemory() error {
	for processType := range r.scale() {
		sum := 0
		for _, s := range r.sidecars(r.Droplet(), processType) {
			sum += s.Memory
		}
		if sum >= r.app.Memory {
			return fmt.Errorf("failed to start app %s: the memory allocation defined is too large to run with the dependent %q process: its sidecars ask for %d MB of %d MB",
				r.app.Name, processType, sum, r.app.Memory)
		}
	}
	return nil
}
