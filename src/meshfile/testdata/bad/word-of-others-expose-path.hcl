service "shop" {
  expose_path = "/metrics"
}
