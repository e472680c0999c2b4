service "shop" {
  check "up" {
    interval = "5s"
  }
  check "no" {
    tcp = false
  }
}
