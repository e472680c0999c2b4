service "web" {
  sidecar {
    config = {
      local_conect_timeout_ms    = 5000
      handshake_timeout_ms       = 1000
      Envoy_Prometheus_Bind_Addr = "0.0.0.0:9102"
    }
  }
  upstream "billing" {
    config = { connect_timeout = "5s", limits = { max_connection = 5 } }
  }
}
envoy {
  bootstrap = { envoy_extra_static_cluster_json = "{}" }
}
