service "shop" {
  protocol = "http"
  sidecar {
    config = { protocol = "http2", max_inbound_connections = 5 }
  }
  upstream "billing" {
    connect_timeout = "2s"
    config          = { connect_timeout_ms = 500, limits = { max_connections = 1 } }
    limits {
      max_connections = 2
    }
  }
}
