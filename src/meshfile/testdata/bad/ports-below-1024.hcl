service "shop" {
  port = 80
  sidecar {
    port = 443
    expose {
      path "/metrics" { listener_port = 1023 }
    }
  }
  upstream "users" { port = 81 }
}
consul {
  ports {
    http     = 500
    grpc     = 502
    serf_lan = 301
  }
}
envoy {
  admin_port = 900
  metrics { prometheus = "0.0.0.0:102" }
}
