service "shop" {}
envoy {
  tracing_json = "{http: zipkin}"
}
