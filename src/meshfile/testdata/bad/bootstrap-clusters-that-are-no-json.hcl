service "web" {}
envoy {
  bootstrap = {
    envoy_extra_static_clusters_json = "{\"name\": \"a\"} {\"name\": \"b\"}"
  }
}
