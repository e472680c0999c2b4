service "web" {
  sidecar { config = { local_idle_timeout_ms = [1, 2] } }
}
