package meshfile

import (
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Task puts the app's tasks into the mesh, with the upstreams of its service.
type Task struct {
	Required     bool       `hcl:"required,optional" default:"true" doc:"Whether a task fails where its mesh is not ready in time. false runs its command outside the mesh then, and says so."`
	StartTimeout Duration   `hcl:"start_timeout,optional" default:"20s" is:"startup" doc:"How long its mesh may take to be ready, from 5s to 10m."`
	Addresses    []string   `hcl:"addresses,optional" without:"agentless those of consul, otherwise the hosts of retry_join, where the bound service names none" doc:"Names or IP addresses of the servers, without port: a task has no agent. What is said here counts before the bound service."`
	Ports        *TaskPorts `hcl:"ports,block" doc:"The servers' ports."`

	Body hcl.Body `hcl:",body"`
}

// OwnTask is a Task with upstreams of its own.
type OwnTask struct {
	Name         string     `hcl:"name,label" is:"name"`
	Required     bool       `hcl:"required,optional" default:"true" doc:"As of a task in a service."`
	StartTimeout Duration   `hcl:"start_timeout,optional" default:"20s" is:"startup" doc:"As of a task in a service."`
	Addresses    []string   `hcl:"addresses,optional" without:"as of a task in a service" doc:"As of a task in a service."`
	Ports        *TaskPorts `hcl:"ports,block" doc:"The servers' ports."`

	Upstreams []*Upstream `hcl:"upstream,block" doc:"A service that the tasks call."`

	Body      hcl.Body  `hcl:",body"`
	NameRange hcl.Range `hcl:"name,label_range"`
}

// TaskPorts are the servers' ports.
type TaskPorts struct {
	HTTP int `hcl:"http,optional" is:"port" without:"agentless that of consul, otherwise 8500, or 8501 where the bound service has a CA" doc:"Their HTTP API."`
	GRPC int `hcl:"grpc,optional" is:"port" without:"agentless that of consul, otherwise 8502, or 8503 where the bound service has a CA" doc:"Envoy's configuration."`

	Body hcl.Body `hcl:",body"`
}

// taskSuffix follows the name of a service in that of its tasks.
const taskSuffix = "-task"

// taskOf is the file's task, and the service that stands for it: a name, upstreams and
// a sidecar that nobody calls. Both are nil without one.
func (m *Mesh) taskOf() (*Task, *Service) {
	for _, s := range m.Services {
		if s.Task != nil {
			return s.Task, &Service{
				Label: s.Label + taskSuffix, Name: s.Name + taskSuffix, Upstreams: s.Upstreams, NameRange: s.NameRange,
				Sidecar: &Sidecar{MeshGateway: s.Sidecar.MeshGateway, Config: s.Sidecar.Config},
			}
		}
	}
	for _, t := range m.Tasks {
		task := &Task{Required: t.Required, StartTimeout: t.StartTimeout, Addresses: t.Addresses, Ports: t.Ports, Body: t.Body}
		return task, &Service{Label: t.Name + taskSuffix, Name: t.Name + taskSuffix, Upstreams: t.Upstreams, NameRange: t.NameRange, Sidecar: &Sidecar{}}
	}
	return nil, nil
}

// ForTask is the file as it is for a task: without an agent, and with one service of
// no process, which listens for nobody. It is nil where tasks are outside the mesh.
func (m *Mesh) ForTask() *Mesh {
	task, service := m.taskOf()
	if task == nil {
		return nil
	}
	service.ID, service.Protocol = service.Name, DefaultProtocol
	service.Sidecar.Port = SidecarPort
	config := Object{}
	maps.Copy(config, service.Sidecar.Config)
	config["bind_address"] = "127.0.0.1"
	service.Sidecar.Config = config

	mesh, consul, lifecycle := *m, *m.Consul, *m.Lifecycle
	mesh.Services, mesh.Tasks, mesh.Consul, mesh.Lifecycle = []*Service{service}, nil, &consul, &lifecycle
	mesh.AsTask = task
	consul.Addresses, consul.Ports = m.taskServers(task), &Ports{HTTP: task.Ports.HTTP, GRPC: task.Ports.GRPC}
	if m.Agentless() {
		for _, port := range []struct{ own, of *int }{{&consul.Ports.HTTP, &m.Consul.Ports.HTTP}, {&consul.Ports.GRPC, &m.Consul.Ports.GRPC}} {
			if *port.own == 0 {
				*port.own = *port.of
			}
		}
	}
	consul.Mode = modeAgentless
	lifecycle.StartTimeout, lifecycle.PortCheck = task.StartTimeout, false
	return &mesh
}

// taskServers are those that a task asks.
func (m *Mesh) taskServers(task *Task) (all []string) {
	switch {
	case len(task.Addresses) > 0:
		for _, address := range task.Addresses {
			all = append(all, withoutBrackets(address))
		}
	case m.Agentless():
		all = m.Consul.Addresses
	default:
		for _, address := range m.Consul.RetryJoin {
			all = append(all, hostOf(address))
		}
	}
	return all
}

// hostOf is the address of a server without the port that it may have for gossip.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return withoutBrackets(address)
}

// callers are the services, and what stands for a task with upstreams of its own.
func (m *Mesh) callers() []*Service {
	all := slices.Clone(m.Services)
	if _, service := m.taskOf(); service != nil && len(m.Tasks) > 0 {
		all = append(all, service)
	}
	return all
}

// Upstreams are all that the file names: of services in the order of the file, and then
// of a task. Two may have one variable; then they have one address, too.
func (m *Mesh) Upstreams() (all []*Upstream) {
	seen := map[string]bool{}
	for _, service := range m.callers() {
		for _, upstream := range service.Upstreams {
			if !seen[upstream.Variable()] {
				seen[upstream.Variable()] = true
				all = append(all, upstream)
			}
		}
	}
	return all
}

// tasks checks what the file says of tasks.
func (v *validator) tasks(m *Mesh) {
	var first hcl.Range
	one := func(at hcl.Range) {
		if first.Filename != "" {
			v.fail(at, "Two tasks", "A file has one task, and line %d has it. All tasks of an app are the same to the mesh.", first.Start.Line)
			return
		}
		first = at
	}
	for _, s := range m.Services {
		if s.Task != nil {
			one(s.Task.Body.MissingItemRange())
		}
	}
	for _, t := range m.Tasks {
		one(t.NameRange)
	}
	mesh := m.ForTask()
	if mesh == nil {
		return
	}
	task, service := mesh.AsTask, mesh.Services[0]
	for _, s := range m.Services {
		if s.Name == service.Name {
			v.fail(firstGiven(givenAt(s.Body, "name"), s.NameRange), "Duplicate name", "The tasks of this app are %s in Consul. Give the service another name.", s.Name)
		}
	}
	switch {
	case len(task.Addresses) > 0:
		v.addresses(task.Body, "addresses", mesh.Consul.Addresses, serverProblem)
	case givenAt(task.Body, "addresses").Filename != "":
		v.addresses(task.Body, "addresses", nil, serverProblem)
	case !m.Agentless():
		for _, address := range m.Consul.RetryJoin {
			if strings.Contains(address, "provider=") {
				v.fail(at(m.Consul.Body, "retry_join"), "Servers that a task does not find",
					"An agent finds servers by provider=…, and a task has none. Name them for it: task { addresses = [\"…\"] }")
			}
		}
	}
	if len(m.Tasks) > 0 {
		v.service(service, nil)
	}
	v.ports(mesh)
}
