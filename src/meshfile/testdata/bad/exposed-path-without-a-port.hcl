service "jobs" {
  process = "worker"
  sidecar {
    expose {
      path "/metrics" { listener_port = 9102 }
    }
  }
}
