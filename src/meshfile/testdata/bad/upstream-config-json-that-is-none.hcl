service "web" {
  upstream "billing" {
    config = { envoy_cluster_json = "name: billing" }
  }
}
