# Made by the Consul mesh buildpack. launch.yml sources this to start a sidecar, which
# gets of the environment what it needs and nothing else: the rest is the app's.
IFS=$' \t\n' # BASH_ENV of the app may have changed it
for mesh_name in $(compgen -e); do
  case "$mesh_name" in
    CF_INSTANCE_ADDR | CF_INSTANCE_CERT | CF_INSTANCE_GUID | CF_INSTANCE_INDEX | CF_INSTANCE_INTERNAL_IP | CF_INSTANCE_IP | CF_INSTANCE_KEY | CF_INSTANCE_PORT | CF_INSTANCE_PORTS | CF_SYSTEM_CERT_PATH | DEPS_DIR | HOME | LANG | MEMORY_LIMIT | PATH | PORT | SERVICE_BINDING_ROOT | TMPDIR | USER | VCAP_APPLICATION | VCAP_SERVICES | VCAP_SERVICES_FILE_PATH) ;;
    *) export -n "$mesh_name" ;;
  esac
done
for mesh_name in $(compgen -A function); do unset -f "$mesh_name"; done
exec "$DEPS_DIR/0/bin/mesh" "$1"
