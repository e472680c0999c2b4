service "shop" {}
service "admin" {
  port = 9000
  sidecar {
    expose {
      path "/metrics" { listener_port = 9103 }
    }
  }
}
envoy {
  metrics { prometheus = "0.0.0.0:9102" }
}
