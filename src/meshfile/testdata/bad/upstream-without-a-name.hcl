service "shop" {
  upstream {
    port = 9001
  }
}
