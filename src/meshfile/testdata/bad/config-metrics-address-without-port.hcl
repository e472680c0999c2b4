service "web" {
  sidecar { config = { envoy_stats_bind_addr = "0.0.0.0" } }
}
