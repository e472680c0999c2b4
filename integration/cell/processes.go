package cell

import (
	"fmt"
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
	sidecars := r.sidecarsOf(d, processType)
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
