service "shop" {
  port = $PORT
}
