service "shop" {
  port = 80.5
}
