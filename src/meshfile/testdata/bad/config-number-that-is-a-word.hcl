service "web" {
  sidecar { config = { max_inbound_connections = "many" } }
}
