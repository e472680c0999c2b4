service "web" {
  sidecar {
    config = {
      local_connect_timeout_ms = 5000
      max_inbound_connections  = "many"
      xds_fetch_timeout_ms     = "15s"
    }
  }
  upstream "nearest" {
    prepared_query = "nearest"
    config         = { connect_timeout_ms = "2s" }
  }
}
service "admin" {
  port = 9090
  sidecar {
    config = { envoy_stats_tags = "team=shop", envoy_stats_flush_interval = 5 }
  }
}
