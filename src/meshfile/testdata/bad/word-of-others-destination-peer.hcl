service "shop" {
  upstream "x" {
    destination_peer = "a"
  }
}
