service "web" {
  sidecar { config = { envoy_prometheus_bind_addr = "0.0.0.0:21000" } }
}
