service "shop" {
  check "up" {
    tcp  = true
    http = "/health"
  }
}
