package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// upstreamPort is where the caller finds the service.
const upstreamPort = 9001

// oursPair stages a service and its caller with this buildpack.
func oursPair(ctx context.Context, f *foundation.Foundation) ([]staged, error) {
	return stagePair(ctx, f, "ours", func(name, upstream string) (cell.App, error) {
		upstreams := ""
		if upstream != "" {
			upstreams = fmt.Sprintf("upstream %q { port = %d }", upstream, upstreamPort)
		}
		dir, err := f.Write(map[string]string{
			"mesh.hcl": fmt.Sprintf("service %q {\n%s\n}\nconsul {\n  datacenter = \"cf\"\n}\n", name, upstreams),
		})
		return cell.App{Name: name, Dir: dir, Buildpacks: []cell.Buildpack{f.Mesh, f.Last}}, err
	})
}

// naivePair stages the same two with everything in the app, as a developer
// does who follows the documents that the project grew from.
func naivePair(ctx context.Context, f *foundation.Foundation) ([]staged, error) {
	return stagePair(ctx, f, "naive", func(name, upstream string) (cell.App, error) {
		upstreams := ""
		if upstream != "" {
			upstreams = fmt.Sprintf(`{"destination_name": %q, "local_bind_port": %d}`, upstream, upstreamPort)
		}
		dir, err := f.Write(map[string]string{
			"consul.d/agent.json": `{"datacenter": "cf", "retry_join": ["consul-server.apps.internal"], "leave_on_terminate": true, "log_level": "warn", "ports": {"grpc": 8502}}`,
			"consul.d/service.json": fmt.Sprintf(`{"service": {"name": %q, "port": 8080,
				"connect": {"sidecar_service": {"proxy": {"upstreams": [%s]}}}}}`, name, upstreams),
		})
		if err != nil {
			return cell.App{}, err
		}
		for _, program := range []string{f.Binaries.Consul(), f.Binaries.Envoy()} {
			if err := binaries.CopyFile(program, filepath.Join(dir, filepath.Base(program))); err != nil {
				return cell.App{}, err
			}
		}
		web := []string{"web"}
		return cell.App{
			Name: name, Dir: dir, Buildpacks: []cell.Buildpack{f.Last},
			Sidecars: []cell.Sidecar{
				{Name: "consul", ProcessTypes: web, Memory: 64, Command: `exec ./consul agent -config-dir=consul.d -data-dir=$HOME/../tmp/consul ` +
					`-node=$CF_INSTANCE_GUID -bind=$CF_INSTANCE_INTERNAL_IP`},
				{Name: "envoy", ProcessTypes: web, Memory: 64, Command: fmt.Sprintf(
					`sleep 5 && exec ./consul connect envoy -sidecar-for %s -envoy-binary ./%s -ignore-envoy-compatibility -- --concurrency 1 --log-level warning`,
					name, filepath.Base(f.Binaries.Envoy()))},
			},
		}, nil
	})
}

// stagePair stages way-service and way-caller, and allows what they need.
func stagePair(ctx context.Context, f *foundation.Foundation, way string, app func(name, upstream string) (cell.App, error)) ([]staged, error) {
	service, caller := way+"-service", way+"-caller"
	if err := f.Allow(foundation.MeshPolicies(map[string][]string{service: nil, caller: {service}})...); err != nil {
		return nil, err
	}
	var pair []staged
	for _, a := range []struct{ name, upstream, command string }{
		{service, "", "./echo"},
		{caller, service, fmt.Sprintf("./echo -first http://127.0.0.1:%d/", upstreamPort)},
	} {
		made, err := app(a.name, a.upstream)
		if err != nil {
			return nil, err
		}
		made.Command = a.command
		droplet, err := f.Stage(ctx, made)
		if err != nil {
			return nil, err
		}
		pair = append(pair, staged{made, droplet})
	}
	return pair, nil
}
