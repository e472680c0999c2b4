service "web" {
  sidecar { config = { envoy_public_listener_json = "[{}]" } }
}
