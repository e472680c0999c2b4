service "shop" {}
service "admin" {
  port = 9000
}
envoy {
  metrics {
    prometheus = "0.0.0.0:65535"
  }
}
