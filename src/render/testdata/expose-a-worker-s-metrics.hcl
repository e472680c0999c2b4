service "jobs" {
  process = "worker"
  sidecar {
    expose {
      path "/metrics" {
        listener_port   = 20200
        local_path_port = 9394
      }
    }
  }
}
