service "shop" {
  port = 9000
  port = 9001
}
