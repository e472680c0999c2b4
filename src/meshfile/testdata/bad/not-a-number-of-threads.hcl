service "shop" {}
envoy {
  concurrency = 0
}
