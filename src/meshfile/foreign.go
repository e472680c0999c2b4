package meshfile

// foreign are words of Consul's own definitions that people write into a
// mesh.hcl, with what to say here instead. The decoder adds it to what HCL says of
// a name that the language does not have.
var foreign = map[string]string{
	"connect":                theSidecar,
	"sidecar_service":        theSidecar,
	"proxy":                  theSidecar,
	"upstreams":              `Each is a block of its service: upstream "NAME" {}.`,
	"destination_name":       "It is service here.",
	"local_bind_address":     "It is address here.",
	"local_bind_port":        "It is port here.",
	"local_bind_socket_path": "It is socket here.",
	"checks":                 `Each is a block: check "NAME" { … }.`,
	"alias_service":          "It is alias here.",
	"args":                   noScripts,
	"script":                 noScripts,
	"docker_container_id":    noScripts,
	"token":                  "Credentials come from a bound service.",
	"tokens":                 "Credentials come from a bound service.",
	"encrypt":                "Credentials come from a bound service.",
	"dns":                    "Consul's DNS is not served in the container. An upstream is found on loopback.",
	"https":                  noSuchPort,
	"grpc_tls":               noSuchPort,
	"serf_wan":               noSuchPort,
	"server":                 noSuchPort,
}

const (
	theSidecar = "Every service has a sidecar. What there is to say of it stands in sidecar {}, and upstreams in the service."
	noScripts  = "Programs are not run for a check here. Use http, tcp, grpc or ttl."
	noSuchPort = "The container's agent listens on http, grpc and serf_lan alone."
)
