service "shop" {
  check "health" {
    http = "health"
  }
  sidecar {
    expose {
      path "metrics" {
        listener_port = 9102
      }
    }
  }
}
