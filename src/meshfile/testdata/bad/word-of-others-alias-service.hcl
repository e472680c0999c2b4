service "shop" {
  check "a" {
    alias_service = "b"
  }
}
