service "shop" {
  upstream "billing" {
    address = "0.0.0.0"
  }
  upstream "search" {
    address = "localhost"
  }
}
