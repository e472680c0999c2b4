service "shop" {
  listen_check = false
}
