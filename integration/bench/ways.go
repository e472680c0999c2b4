package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// way is a manner to put an app into the mesh.
type way string

const (
	ours      way = "ours"
	agentless way = "agentless" // ours too, without agents
	naive     way = "naive"
	floor     way = "floor"
	plain     way = "plain" // into none
)

// buildpack is whether this project puts the app into the mesh.
func (w way) buildpack() bool { return w == ours || w == agentless }

// The roles of the apps. Their services are named WAY-ROLE.
const (
	webService  = "http"
	tcpService  = "tcp"
	idleService = "idle" // with a check
	caller      = "caller"

	checkedService = "checked"
	watcher        = "watcher" // calls that alone
	jobs           = "jobs"    // whose tasks call tcpService
)

// Where a caller finds the services.
const (
	webPort = 9001
	tcpPort = 9002
)

func (w way) name(role string) string { return string(w) + "-" + role }

// upstreams of a role, by service.
func (w way) upstreams(role string) map[string]int {
	switch role {
	case caller:
		return map[string]int{w.name(webService): webPort, w.name(tcpService): tcpPort}
	case jobs:
		return map[string]int{w.name(tcpService): tcpPort}
	case watcher:
		return map[string]int{w.name(checkedService): webPort}
	}
	return nil
}

// address is where a caller finds the service without requests.
func (w way) address() string {
	if w == plain {
		return w.name(tcpService) + ".apps.internal:8080"
	}
	return fmt.Sprintf("127.0.0.1:%d", tcpPort)
}

// policies are those of an app of that role. Idle instances run alone.
func (w way) policies(role string) []cell.Policy {
	apps := map[string][]string{
		w.name(webService): nil, w.name(tcpService): nil, w.name(caller): {w.name(webService), w.name(tcpService)},
	}
	switch role {
	case idleService:
		apps = map[string][]string{w.name(idleService): nil}
	case jobs:
		apps = map[string][]string{w.name(jobs): {w.name(tcpService)}}
	case checkedService, watcher:
		apps = map[string][]string{w.name(checkedService): nil, w.name(watcher): {w.name(checkedService)}}
	}
	switch w {
	case plain:
		source := caller
		if role == jobs {
			source = jobs
		}
		return []cell.Policy{{Source: w.name(source), Destination: w.name(tcpService), Protocol: "tcp", Start: 8080}}
	case agentless:
		return foundation.AgentlessPolicies(apps)
	}
	return foundation.MeshPolicies(apps)
}

// app is the source of an app of that role.
func (w way) app(f *foundation.Foundation, role string) (cell.App, error) {
	switch w {
	case ours, agentless:
		return w.withBuildpack(f, role)
	case plain:
		dir, err := f.Write(nil)
		return cell.App{Name: w.name(role), Dir: dir, Buildpacks: []cell.Buildpack{f.Last}}, err
	case naive:
		return w.byHand(f, role, map[string]string{
			"consul.d/agent.json":   agentJSON,
			"consul.d/service.json": fmt.Sprintf(`{"service": {"name": %q, "port": 8080, "connect": {"sidecar_service": {"proxy": {"upstreams": [%s]}}}}}`, w.name(role), w.upstreamsJSON(role)),
		}, fmt.Sprintf(`sleep 5 && exec ./consul connect envoy -sidecar-for %s -envoy-binary ./%s -ignore-envoy-compatibility -- --concurrency 1 --log-level warning`,
			w.name(role), filepath.Base(f.Binaries.Envoy())))
	}
	return w.byHand(f, role, map[string]string{
		"consul.d/agent.json": agentJSON,
		"register.json": fmt.Sprintf(`{"Name": %q, "Port": 8080, "Connect": {"SidecarService": {"Port": 21000, "Proxy": {"Upstreams": [%s]},
			"Checks": [{"CheckID": "ready", "Name": "ready", "TTL": "10m"}]}}}`, w.name(role), w.upstreamsJSON(role)),
		"proxy.sh": floorScript,
	}, fmt.Sprintf("exec bash proxy.sh %s ./%s", w.name(role), filepath.Base(f.Binaries.Envoy())))
}

func (w way) withBuildpack(f *foundation.Foundation, role string) (cell.App, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "service %q {\n", w.name(role))
	if role == webService {
		fmt.Fprintln(&text, `  protocol = "http"`)
	}
	if role == idleService || role == checkedService {
		fmt.Fprintln(&text, `  check "health" { http = "/health" }`)
	}
	for name, port := range w.upstreams(role) {
		fmt.Fprintf(&text, "  upstream %q { port = %d }\n", name, port)
	}
	if role == jobs {
		fmt.Fprintln(&text, "  task {}")
	}
	consul := `datacenter = "cf"`
	if w == agentless {
		consul = foundation.AgentlessLines
	}
	fmt.Fprintf(&text, "}\nconsul {\n%s\n}\n", consul)
	dir, err := f.Write(map[string]string{"mesh.hcl": text.String()})
	return cell.App{Name: w.name(role), Dir: dir, Buildpacks: []cell.Buildpack{f.Mesh, f.Last}}, err
}

// byHand has everything in the app, as a developer does who follows the
// documents that the project grew from.
func (w way) byHand(f *foundation.Foundation, role string, files map[string]string, proxy string) (cell.App, error) {
	dir, err := f.Write(files)
	if err != nil {
		return cell.App{}, err
	}
	for _, program := range []string{f.Binaries.Consul(), f.Binaries.Envoy()} {
		if err := artifact.Copy(program, filepath.Join(dir, filepath.Base(program))); err != nil {
			return cell.App{}, err
		}
	}
	web := []string{"web"}
	return cell.App{
		Name: w.name(role), Dir: dir, Buildpacks: []cell.Buildpack{f.Last},
		Sidecars: []cell.Sidecar{
			{Name: "consul", ProcessTypes: web, Memory: 64, Command: `exec ./consul agent -config-dir=consul.d -data-dir=$HOME/../tmp/consul ` +
				`-node=$CF_INSTANCE_GUID -bind=$CF_INSTANCE_INTERNAL_IP`},
			{Name: "envoy", ProcessTypes: web, Memory: 64, Command: proxy},
		},
	}, nil
}

const agentJSON = `{"datacenter": "cf", "retry_join": ["consul-server.apps.internal"], "leave_on_terminate": true, "log_level": "warn", "ports": {"grpc": 8502}}`

func (w way) upstreamsJSON(role string) string {
	var all []string
	for name, port := range w.upstreams(role) {
		all = append(all, fmt.Sprintf(`{"destination_name": %q, "local_bind_port": %d}`, name, port))
	}
	return strings.Join(all, ", ")
}

// floorScript is the start made by hand: nothing is done that is not needed,
// and no program is started where bash can do it. It is given the service and
// Envoy's program.
const floorScript = `
exec {never}<> <(:) # nothing ever comes out of it: a sleep without a program
ask() { # PORT METHOD PATH [BODY]; the answer is in $answer
  answer=
  {
    printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' "$2" "$3" "${#4}" "$4" >&3
    IFS= read -r -d '' answer <&3
  } 3<>/dev/tcp/127.0.0.1/$1
  [[ $answer == HTTP/1.?' 200 '* ]]
} 2>/dev/null
until ask 8500 GET /v1/status/leader && [[ $answer == *:8300* ]]; do read -rt 0.005 -u $never; done
until ask 8500 PUT /v1/agent/service/register "$(<register.json)"; do read -rt 0.005 -u $never; done
./consul connect envoy -bootstrap -sidecar-for $1 -ignore-envoy-compatibility > ../tmp/bootstrap.json
$2 --config-path ../tmp/bootstrap.json --disable-hot-restart --concurrency 1 --log-level warning &
until ask 19000 GET /ready; do read -rt 0.005 -u $never; done
ask 8500 PUT /v1/agent/check/update/ready '{"Status": "passing"}'
wait
`
