service "web" {
  sidecar { config = { bind_address = { ip = "0.0.0.0" } } }
}
