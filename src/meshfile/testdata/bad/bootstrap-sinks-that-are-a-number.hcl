service "web" {}
envoy {
  bootstrap = { envoy_extra_stats_sinks_json = "1" }
}
