service "web" {
  sidecar { config = { envoy_stats_config_json = "{},{}" } }
}
