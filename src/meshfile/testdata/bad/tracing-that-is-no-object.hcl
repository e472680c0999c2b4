service "shop" {}
envoy {
  tracing_json = "[]"
}
