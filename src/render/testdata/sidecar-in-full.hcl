service "shop" {
  protocol = "http"
  sidecar {
    port                  = 21500
    local_service_address = "127.0.0.1"
    mesh_gateway          = "local"
    config = {
      max_inbound_connections     = 500
      local_connect_timeout_ms    = 1500
      local_request_timeout_ms    = 30000
      local_idle_timeout_ms       = 60000
      balance_inbound_connections = "exact_balance"
    }
    check "public-port" {
      http     = "http://127.0.0.1:19000/ready"
      interval = "5s"
      timeout  = "500ms"
    }
  }
}
