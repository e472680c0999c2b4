service "shop" {
  sidecar {
    config = { envoy_stats_tags = ["a=b"], EnvoyStatsdUrl = "udp://127.0.0.1:8125" }
  }
  upstream "billing" {
    connect_timeout = "1s"
    config          = { ConnectTimeoutMs = 500 }
  }
}
envoy {
  tracing_json = "{}"
  bootstrap = {
    envoy_stats_tags           = ["c=d"]
    envoy_tracing_json         = "{}"
    envoy_prometheus_bind_addr = "127.0.0.1:9102"
    envoy_dogstatsd_url        = "udp://127.0.0.1:8126"
  }
  metrics {
    prometheus = "127.0.0.1:9103"
    statsd     = "udp://127.0.0.1:8125"
  }
}
