service "shop" {
  check {
    http = "/health"
  }
}
