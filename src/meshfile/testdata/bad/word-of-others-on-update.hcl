service "shop" {
  check "up" {
    tcp       = true
    on_update = "ignore"
  }
}
