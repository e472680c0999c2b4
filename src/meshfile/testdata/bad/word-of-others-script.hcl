service "shop" {
  check "up" {
    script = "/bin/true"
  }
}
