service "shop" {
  check "up" { http = null }
}
