service "shop" {}
envoy {
  source = "https://example.com/envoy"
}
