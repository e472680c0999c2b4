service "shop" {
  check "up" {
    tcp = "localhost:8080"
  }
}
