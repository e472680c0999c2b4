service "web" {
  sidecar { config = { envoy_prometheus_bind_addr = "localhost:9102" } }
}
