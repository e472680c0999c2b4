service "shop" {
  port = 8080 / 0
}
