package meshfile

import (
	"cmp"
	"encoding"
	"hash/fnv"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// fillDefaults gives what the file does not say its value: first what the tags of
// the schema say, then what depends on other values. The validator comes later.
func (m *Mesh) fillDefaults() {
	fillTags(reflect.ValueOf(m).Elem(), nil)
	for _, s := range m.Services {
		s.Name = cmp.Or(s.Name, s.Label)
		s.ID = cmp.Or(s.ID, s.Name)
		if s.Port == AppPort && s.Process == webProcess && s.Sidecar.LocalSocketPath == "" {
			s.Port = 0 // whoever writes 8080 means PORT
		}
	}
	for _, s := range m.callers() {
		for _, u := range s.Upstreams {
			u.Service = cmp.Or(u.Service, u.Name)
		}
	}
	m.Consul.fillServers()
	m.fillDrain()
	m.assignPorts()
}

// fillDrain shares out the first part of a stop where the file does not: callers hear
// of it, and then their requests in flight are waited for.
func (m *Mesh) fillDrain() {
	l := m.Lifecycle
	left := l.mostDrain() // for the delay
	if l.DrainTimeout.String() == "" {
		l.DrainTimeout.Duration = l.mostDrain()
	} else {
		left = min(left, 4*l.Grace.Duration/10-l.DrainTimeout.Duration)
	}
	if l.DrainDelay.String() != "" {
		return
	}
	l.DrainDelay.Duration = agentDrainDelay
	if m.Agentless() {
		l.DrainDelay.Duration = agentlessDrainDelay
	}
	l.LongestDrainDelay = max(l.DrainDelay.Duration, left)
}

// Processes are the process types that have a service, in the order of the file.
func (m *Mesh) Processes() (types []string) {
	for _, service := range m.Services {
		if !slices.Contains(types, service.Process) {
			types = append(types, service.Process)
		}
	}
	return types
}

// SidecarMemory is what the sidecars take off the memory of an instance, in MB.
func (m *Mesh) SidecarMemory() int {
	if m.Agentless() {
		return m.Envoy.Memory
	}
	return m.Consul.Memory + m.Envoy.Memory
}

// mostDrain is the longest of each of both.
func (l *Lifecycle) mostDrain() time.Duration { return 3 * max(l.Grace.Duration, usualGrace) / 10 }

// fillTags fills a block, and those in it, from the tags. body is where the block
// stands, nil for one that is not in the file.
func fillTags(block reflect.Value, body hcl.Body) {
	t := block.Type()
	given := content(body, t).Attributes
	for i := range t.NumField() {
		field, value := t.Field(i), block.Field(i)
		switch name, kind, _ := strings.Cut(field.Tag.Get("hcl"), ","); kind {
		case "optional":
			if given[name] == nil {
				setDefault(value, field.Tag.Get("default"))
			}
		case "block":
			if value.Kind() == reflect.Slice {
				for i := range value.Len() {
					fillBlock(value.Index(i))
				}
				continue
			}
			if value.IsNil() && alwaysThere[field.Name] {
				value.Set(reflect.New(field.Type.Elem()))
			}
			if !value.IsNil() {
				fillBlock(value)
			}
		}
	}
}

// alwaysThere are the blocks that mean something when they are left out.
var alwaysThere = map[string]bool{"Consul": true, "Ports": true, "Envoy": true, "Sidecar": true, "PassiveHealthCheck": true, "Lifecycle": true}

func fillBlock(pointer reflect.Value) {
	body, _ := pointer.Elem().FieldByName("Body").Interface().(hcl.Body)
	fillTags(pointer.Elem(), body)
}

// setDefault sets a value from the text of its tag. TestTags tries every tag.
func setDefault(value reflect.Value, text string) {
	if text == "" {
		return
	}
	if to, is := value.Addr().Interface().(encoding.TextUnmarshaler); is {
		_ = to.UnmarshalText([]byte(text))
		return
	}
	switch value.Kind() {
	case reflect.String:
		value.SetString(text)
	case reflect.Int:
		n, _ := strconv.ParseInt(text, 10, 64)
		value.SetInt(n)
	case reflect.Bool:
		value.SetBool(text == "true")
	}
}

// fillServers says which servers are joined, or without an agent asked.
func (c *Consul) fillServers() {
	given := content(c.Body, typeOfConsul).Attributes
	if given["retry_join"] == nil {
		c.RetryJoin = []string{DefaultRetryJoin}
	}
	if c.Mode != modeAgentless {
		return
	}
	if given["addresses"] == nil {
		c.Addresses = []string{DefaultRetryJoin}
	}
	for i, address := range c.Addresses {
		c.Addresses[i] = withoutBrackets(address)
	}
	// The usual ones depend on whether the servers are asked over TLS, which the
	// bound service says in the container.
	if givenAt(c.Ports.Body, "http").Filename == "" {
		c.Ports.HTTP = 0
	}
	if givenAt(c.Ports.Body, "grpc").Filename == "" {
		c.Ports.GRPC = 0
	}
}

// withoutBrackets is an IPv6 address as it is resolved.
func withoutBrackets(address string) string {
	inner, bracket := strings.CutPrefix(address, "[")
	if inner = strings.TrimSuffix(inner, "]"); bracket && ip(inner).IsValid() {
		return inner
	}
	return address
}

// assignPorts gives every sidecar and upstream without a port its own. An
// upstream's depends on its names alone, so that it is the same at every
// staging and does not move when another upstream is added above it.
func (m *Mesh) assignPorts() {
	taken := map[int]bool{AppPort: true}
	if !m.Agentless() {
		taken[m.Consul.Ports.HTTP], taken[m.Consul.Ports.GRPC], taken[m.Consul.Ports.SerfLAN] = true, true, true
	}
	for i, s := range m.Services {
		if s.Sidecar.Port == 0 {
			s.Sidecar.Port = SidecarPort + i
		}
		taken[s.Port], taken[s.Sidecar.Port], taken[m.AdminPort(i)], taken[m.MetricsPort(i)] = true, true, true, true
		for _, p := range m.configPorts(s) {
			taken[p.port] = true
		}
		if s.Sidecar.Expose != nil {
			for _, path := range s.Sidecar.Expose.Paths {
				taken[path.ListenerPort] = true
			}
		}
	}
	callers := m.callers()
	for _, s := range callers {
		for _, u := range s.Upstreams {
			taken[u.Port] = true
		}
	}
	assigned := map[string]int{} // the same upstream of two processes has the same port
	used := map[string]bool{}
	for _, s := range callers {
		for _, u := range s.Upstreams {
			if u.Port != 0 || u.Socket != "" {
				continue
			}
			name := u.Name + "/" + u.Datacenter
			if port := assigned[name]; port != 0 && !used[s.Process+name] {
				u.Port = port
			} else {
				u.Port = freePort(taken, s.Label+"/"+name)
				assigned[name] = u.Port
			}
			used[s.Process+name] = true
		}
	}
}

// freePort finds a port for a name by its hash. With every port of the range
// taken it goes on above it.
func freePort(taken map[int]bool, name string) int {
	hash := fnv.New32a()
	hash.Write([]byte(name))
	port := UpstreamPorts + int(hash.Sum32()%upstreamPortsCount)
	for n := 0; taken[port]; n++ {
		port++
		if n < upstreamPortsCount && port == UpstreamPorts+upstreamPortsCount {
			port = UpstreamPorts
		}
	}
	taken[port] = true
	return port
}
