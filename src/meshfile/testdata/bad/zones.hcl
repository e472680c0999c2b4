service "shop" {
  sidecar { local_service_address = "::1%lo" }
  upstream "stock" { address = "::1%$(id)" }
}
envoy {
  metrics {
    prometheus = "[::1%lo]:9102"
    statsd     = "udp://localhost:8125"
    dogstatsd  = "udp://127.0.0.1:99999"
  }
}
