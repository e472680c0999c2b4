service "shop" {
  protocol = "http"
  sidecar {
    expose {
      path "/metrics" { listener_port = 20200 }
      path "/live" {
        listener_port   = 20201
        local_path_port = 9001
        protocol        = "http2"
      }
    }
  }
}
