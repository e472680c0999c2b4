package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
)

// Policy is an ACL policy. Its rules are whole stanzas, of which none can be
// left out.
type Policy struct {
	Name  string
	About string // for people
	Rules []string
}

// Text is the policy as `consul acl policy create -rules` reads it.
func (p Policy) Text() string {
	return "# " + p.About + "\n" + strings.Join(p.Rules, "\n") + "\n"
}

// AgentPolicy is what the agents of an app's instances need, or without agents
// their nodes.
func AgentPolicy(app string) Policy {
	return Policy{
		Name:  policyName(app) + "-agent",
		About: fmt.Sprintf("The nodes of the app %q (agent_token).", app),
		Rules: []string{rule("node_prefix", droplet.NodeName(app, ""), "write")},
	}
}

// ServerPolicy is what the servers' own agent token needs, where the names of
// their nodes start with prefix.
func ServerPolicy(prefix string) Policy {
	return Policy{
		Name:  "consul-servers",
		About: "The servers (their acl.tokens.agent).",
		Rules: []string{rule("node_prefix", prefix, "write")},
	}
}

// ServicePolicy is what the services of a file and their sidecars need.
func ServicePolicy(mesh *meshfile.Mesh, app string) Policy {
	rules := map[string]string{} // resource and name → access
	set := func(resource, name, access string) {
		if key := resource + " " + name; rules[key] != "write" {
			rules[key] = access
		}
	}
	for _, service := range withTask(mesh) {
		set("service", service.Name, "write")
		set("service", droplet.SidecarID(service.Name), "write")
		for _, upstream := range service.Upstreams {
			// A sidecar finds the sidecars of its upstreams, and their nodes,
			// whose names start with those of apps that nobody here knows.
			set("node_prefix", "", "read")
			if upstream.PreparedQuery != "" {
				set("query", upstream.PreparedQuery, "read")
				set("service_prefix", "", "read")
				continue
			}
			name := upstream.Service
			set("service", name, "read")
			set("service", droplet.SidecarID(name), "read")
		}
	}
	nodes := droplet.NodeName(app, "")
	if rules[`node_prefix `] == "" {
		// An instance looks at its own node, to see whether the servers still have it.
		set("node_prefix", nodes, "read")
	}
	if mesh.Agentless() || mesh.ForTask() != nil {
		set("session_prefix", nodes, "write")
	}
	if mesh.Agentless() {
		first := map[string]bool{} // the first service of a process shows that an instance lives
		for _, service := range mesh.Services {
			if !first[service.Process] {
				first[service.Process] = true
				set("key_prefix", droplet.AliveKeys(service.Name), "write")
			}
		}
	}
	p := Policy{
		Name:  policyName(app) + "-services",
		About: fmt.Sprintf("The services of the app %q and their sidecars (service_token).", app),
	}
	for _, key := range slices.Sorted(maps.Keys(rules)) {
		resource, name, _ := strings.Cut(key, " ")
		p.Rules = append(p.Rules, rule(resource, name, rules[key]))
	}
	if parts := mesh.MeshWrite(); len(parts) > 0 {
		p.Rules = append(p.Rules, meshRule(parts))
	}
	return p
}

// meshRule lets a token bring code or configuration of its own into an Envoy, which
// Consul knows no narrower rule for.
func meshRule(parts []string) string {
	return "# " + strings.Join(parts, ", ") + ": servers from Consul 2.0 on ask for this. It is wide: its holder may write\n" +
		"# what holds for the whole mesh, such as proxy-defaults, gateways and their certificates.\n" +
		`mesh = "write"`
}

// withTask are the services of a file, and what is one for its tasks.
func withTask(mesh *meshfile.Mesh) []*meshfile.Service {
	all := slices.Clone(mesh.Services)
	if task := mesh.ForTask(); task != nil {
		all = append(all, task.Services...)
	}
	return all
}

func rule(resource, name, access string) string {
	return fmt.Sprintf("%s %q { policy = %q }", resource, name, access)
}

// policyName keeps to the characters that Consul lets a policy's name have.
func policyName(app string) string { return strings.TrimSuffix(droplet.NodeName(app, ""), "-") }

// Intention is a configuration entry that lets callers through.
type Intention struct {
	Destination string
	Sources     []string
}

// Intentions are those that the upstreams of some files need, by destination.
func Intentions(meshes ...*meshfile.Mesh) []Intention {
	callers := map[string]map[string]bool{}
	for _, mesh := range meshes {
		for _, service := range withTask(mesh) {
			for _, upstream := range service.Upstreams {
				// Where another partition, namespace or peer is meant, the entry
				// is written there; where a query chooses, nobody knows here.
				if upstream.PreparedQuery != "" || upstream.Peer != "" || upstream.Partition != "" || upstream.Namespace != "" {
					continue
				}
				name := upstream.Service
				if callers[name] == nil {
					callers[name] = map[string]bool{}
				}
				callers[name][service.Name] = true
			}
		}
	}
	var all []Intention
	for _, name := range slices.Sorted(maps.Keys(callers)) {
		all = append(all, Intention{name, slices.Sorted(maps.Keys(callers[name]))})
	}
	return all
}

// Text is the entry as `consul config write` reads it.
func (i Intention) Text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "Kind = \"service-intentions\"\nName = %q\nSources = [\n", i.Destination)
	for _, source := range i.Sources {
		fmt.Fprintf(&text, "  { Name = %q, Action = \"allow\" },\n", source)
	}
	text.WriteString("]\n")
	return text.String()
}
