service "shop" {}
envoy {
  metrics {
    statsd    = "127.0.0.1:8125"
    dogstatsd = "localhost"
  }
}
