service "shop" {
  port: 9000
}
