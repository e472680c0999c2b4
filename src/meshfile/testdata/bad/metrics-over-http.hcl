service "shop" {}
envoy {
  metrics {
    statsd    = "http://metrics.example.com"
    dogstatsd = "tcp://127.0.0.1:8125"
  }
}
