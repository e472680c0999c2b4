service "web" {
  sidecar { config = { envoy_listener_tracing_json = "{\"a\": 1,}" } }
}
