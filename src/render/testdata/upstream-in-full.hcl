service "shop" {
  protocol = "http"
  upstream "billing" {
    service         = "billing-api"
    datacenter      = "dc2"
    address         = "127.0.0.3"
    port            = 9001
    protocol        = "http2"
    connect_timeout = "1500ms"
    balance         = "exact_balance"
    mesh_gateway    = "remote"
    config          = { envoy_cluster_json = jsonencode({ name = "x" }) }

    limits {
      max_connections         = 100
      max_pending_requests    = 50
      max_concurrent_requests = 200
    }
    passive_health_check {
      interval                  = "5s"
      max_failures              = 3
      enforcing_consecutive_5xx = 80
      max_ejection_percent      = 34
      base_ejection_time        = "1m"
    }
  }
}
