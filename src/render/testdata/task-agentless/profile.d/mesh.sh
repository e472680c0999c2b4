# Made by the Consul mesh buildpack. Cloud Foundry's launcher sources this in
# every process of the app, maybe twice.
export MESH_SERVICE_SHOP_PORT="${PORT:-8080}"
export MESH_UPSTREAM_STOCK_ADDR=127.0.0.1:20203 MESH_UPSTREAM_STOCK_HOST=127.0.0.1 MESH_UPSTREAM_STOCK_PORT=20203

# The command about to start is in $2. If it may be the app's, `mesh app` takes
# its place: it holds the app until the mesh is ready. Left alone are this
# buildpack's sidecars, a person's shell, and a launcher with an entrypoint
# prefix, which does not take a shell's arguments.
if [ -z "${mesh_profile_done:-}" ]; then
  mesh_profile_done=1
  case "${0##*/} ${2:-}" in
    'launcher . "$DEPS_DIR/0/sidecar.sh" agent' | 'launcher . "$DEPS_DIR/0/sidecar.sh" proxy' | 'launcher bash' | 'launcher ') ;;
    launcher\ *)
      mesh_staging=
      { IFS= read -r -d '' mesh_staging <../staging_info.yml; } 2>/dev/null || :
      if [ -t 0 ] || [[ $mesh_staging == *entrypoint_prefix* ]]; then
        :
      else
        set -- "$1" 'set -- "${DEPS_DIR:-}/0/bin/mesh"
          shopt -s execfail
          [ ! -s "$1" ] || exec "$1" app -- bash -c "$0"
          echo "mesh: the app starts outside the mesh: $1 is missing or broken" >&2
          exec bash -c "$0"' "$2"
      fi
      ;;
  esac
fi
