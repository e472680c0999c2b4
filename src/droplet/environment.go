package droplet

// Environment are the variables that the container program has of those that the
// platform and the app set: what it reads, where it is, and what any program wants to
// find. All others are the app's: of GODEBUG it would print tokens, LD_PRELOAD would
// put the app's libraries into it.
var Environment = []string{
	"CF_INSTANCE_ADDR", "CF_INSTANCE_CERT", "CF_INSTANCE_GUID", "CF_INSTANCE_INDEX", "CF_INSTANCE_INTERNAL_IP", "CF_INSTANCE_IP",
	"CF_INSTANCE_KEY", "CF_INSTANCE_PORT", "CF_INSTANCE_PORTS", "CF_SYSTEM_CERT_PATH", "DEPS_DIR", "HOME", "LANG", "MEMORY_LIMIT",
	"PATH", "PORT", "SERVICE_BINDING_ROOT", "TMPDIR", "USER", "VCAP_APPLICATION", "VCAP_SERVICES", "VCAP_SERVICES_FILE_PATH",
}
