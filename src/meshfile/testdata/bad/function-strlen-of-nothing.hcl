service "shop" {
  port = strlen()
}
