service "shop" {
  sidecar {
    config = ["max_inbound_connections"]
  }
  upstream "billing" {
    config = 5
  }
}
consul {
  config = "{}"
}
envoy {
  bootstrap = true
}
