service "shop" {
  upstream "billing" {
    limits { max_connections = 10 }
  }
  upstream "search" {
    limits {}
  }
}
