service "web" {
  protocol = "http"
  sidecar {
    config = {
      max_inbound_connections  = 100
      local_connect_timeout_ms = "5s"
    }
  }
}
