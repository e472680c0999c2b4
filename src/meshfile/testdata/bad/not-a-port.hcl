service "shop" {
  port = 0
  tagged_address "wan" {
    address = "a"
    port    = 65536
  }
  sidecar {
    port = -1
    expose {
      path "/metrics" {
        listener_port   = 100000
        local_path_port = -5
      }
    }
  }
  upstream "billing" { port = 65536 }
}
consul {
  ports {
    http     = -1
    grpc     = 0
    serf_lan = 70000
  }
}
envoy {
  admin_port = 0
}
