service "shop" {}
envoy {
  metrics {
    prometheus = "9102"
  }
}
