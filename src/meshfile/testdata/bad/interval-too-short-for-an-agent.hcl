service "shop" {
  check "health" {
    http     = "/health"
    interval = "500ms"
  }
}
