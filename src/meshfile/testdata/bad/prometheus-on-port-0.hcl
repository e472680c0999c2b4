service "shop" {}
envoy {
  metrics {
    prometheus = "0.0.0.0:0"
  }
}
