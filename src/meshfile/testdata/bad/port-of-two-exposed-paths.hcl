service "shop" {
  sidecar {
    expose {
      path "/metrics" { listener_port = 9102 }
      path "/status" { listener_port = 9102 }
    }
  }
}
