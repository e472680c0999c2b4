service "shop" {}
envoy {
  metrics { statsd = "tcp://127.0.0.1:8125" }
}
