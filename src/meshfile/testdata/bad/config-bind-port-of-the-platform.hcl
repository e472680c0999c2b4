service "web" {
  sidecar { config = { bind_port = "2222" } }
}
