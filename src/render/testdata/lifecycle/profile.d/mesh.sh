# Made by the Consul mesh buildpack. Cloud Foundry's launcher sources this in
# every process of the app, maybe twice.
export MESH_SERVICE_SHOP_PORT="${PORT:-8080}"
