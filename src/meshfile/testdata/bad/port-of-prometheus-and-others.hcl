service "shop" { port = 9102 }
envoy {
  metrics { prometheus = "0.0.0.0:9102" }
}
