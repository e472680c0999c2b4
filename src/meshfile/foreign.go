package meshfile

// Foreign are words of other systems that people write into a mesh.hcl, with what to
// say here instead. Where the language has no such name, its mistake says so too.
var Foreign = []struct{ Word, System, Here string }{
	{"address_mode", nomads, "A service is registered with the instance's own address, which the platform gives it."},
	{"alias_service", consuls, "It is alias here."},
	{"args", consuls, noScripts},
	{"canary_tags", nomads, "A rolling deployment is the platform's, and no instance knows that it is one of those to try. Say tags."},
	{"check_restart", nomads, "What fails its checks gets no traffic. The platform restarts what fails its own: health-check-type in the app's manifest."},
	{"checks", consuls, `Each is a block: check "NAME" { … }.`},
	{"connect", consuls, theSidecar},
	{"destination_name", consuls, "It is service here."},
	{"destination_peer", consuls, "It is peer here."},
	{"dns", consuls, "Consul's DNS is not served in the container. An upstream is found on loopback."},
	{"docker_container_id", consuls, noScripts},
	{"encrypt", consuls, fromBinding},
	{"expose_path", nomads, `It is a block of expose here: path "/metrics" { listener_port = 20100 }.`},
	{"gateway", consuls, noGateways},
	{"grpc_tls", consuls, noSuchPort},
	{"https", consuls, noSuchPort},
	{"kind", consuls, noGateways},
	{"listener", consuls, noGateways},
	{"local_bind_address", consuls, "It is address here."},
	{"local_bind_port", consuls, "It is port here."},
	{"local_bind_socket_mode", consuls, "It is socket_mode here."},
	{"local_bind_socket_path", consuls, "It is socket here."},
	{"local_path_port", consuls, "It is that of a path in expose."},
	{"on_update", nomads, "What fails its checks gets no traffic, at the start as later."},
	{"proxy", consuls, theSidecar},
	{"script", consuls, noScripts},
	{"serf_wan", consuls, noSuchPort},
	{"server", consuls, noSuchPort},
	{"sidecar_service", consuls, theSidecar},
	{"sidecar_task", nomads, "Envoy is run by this buildpack: its memory, its version and its log stand in envoy {}."},
	{"socket_path", consuls, "A service that listens on a socket says local_service_socket_path in sidecar {}; that of an upstream is socket."},
	{"template", nomads, "What the app reads of its upstreams is in MESH_UPSTREAM_NAME_ADDR."},
	{"token", consuls, fromBinding},
	{"tokens", consuls, fromBinding},
	{"transparent_proxy", consuls, "The platform lets no container change its packet filter: the app calls its upstreams on loopback."},
	{"upstreams", consuls, `Each is a block of its service: upstream "NAME" {}.`},

	{"connect-inject", kubernetes, "The mesh is there where an app has a mesh.hcl and is pushed with this buildpack."},
	{"connect-service", kubernetes, `It is the label: service "NAME" {}.`},
	{"connect-service-port", kubernetes, "It is port in service; for the process web the platform's PORT without one. Several ports in one service are Consul Enterprise's; here each is a service."},
	{"connect-service-protocol", kubernetes, "It is protocol in service."},
	{"connect-service-upstreams", kubernetes, `Each "NAME:PORT" is a block of its service: upstream "NAME" { port = PORT }.`},
	{"envoy-extra-args", kubernetes, "It is extra_args in envoy."},
	{"service-tags", kubernetes, "It is tags in service."},
	{"use-proxy-health-check", kubernetes, "It is port_check in lifecycle."},

	{"portMappings", ecs, "It is port in service; for the process web the platform's PORT without one."},
	{"requestTimeout", ecs, "A request may take as long as without a mesh; a timeout for callers is a service-resolver or service-router entry in Consul."},
	{"serviceConnectConfiguration", ecs, theSidecar},
	{"clientAliases", ecs, `A caller has a block for what it calls: upstream "NAME" { port = PORT }.`},
	{"discoveryName", ecs, `It is the label: service "NAME" {}.`},
	{"localBindPort", ecs, "It is port of an upstream."},
	{"destinationName", ecs, "It is the label of an upstream."},
}

const (
	consuls    = "Consul"
	nomads     = "Nomad"
	kubernetes = "Kubernetes"
	ecs        = "ECS"

	theSidecar  = "Every service has a sidecar. What there is to say of it stands in sidecar {}, and upstreams in the service."
	noScripts   = "Programs are not run for a check here. Use http, tcp, grpc or ttl."
	noSuchPort  = "The container's agent listens on http, grpc and serf_lan alone."
	fromBinding = "Credentials come from a bound service."
	noGateways  = "A service has a sidecar, which is a connect-proxy. There are no gateways in this product."
)

// Hint is what to say of a word that the language does not have, empty for nothing.
func Hint(word string) string {
	for _, f := range Foreign {
		if f.Word == word {
			return f.Here
		}
	}
	return ""
}
