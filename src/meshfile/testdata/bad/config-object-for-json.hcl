service "web" {
  sidecar {
    config = {
      envoy_local_cluster_json = { name = "local_app" }
    }
  }
}
