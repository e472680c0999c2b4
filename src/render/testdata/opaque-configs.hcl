service "shop" {
  sidecar {
    config = {
      envoy_public_listener_json = jsonencode({ name = "public_listener", per_connection_buffer_limit_bytes = 32768 })
      rate_limits                = { static = { requests_per_second = 1000, requests_max_burst = 2000 } }
    }
  }
  upstream "billing" {
    config = {
      connect_timeout_ms  = 100
      envoy_listener_json = jsonencode({ name = "billing", tags = ["a<b", 1, 2.5, true, null] })
    }
  }
}
