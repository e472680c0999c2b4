service "shop" {
  upstream "billing" {
    limits { max_connections = 0 }
  }
}
