service "shop" {
  protocol = http
}
