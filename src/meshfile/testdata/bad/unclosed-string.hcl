service "shop" {
  protocol = "http
}
