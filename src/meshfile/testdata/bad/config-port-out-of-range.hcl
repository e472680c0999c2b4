service "web" {
  sidecar { config = { bind_port = 70000 } }
}
