service "shop" {
  check "up" { tcp = true }
  check "up" { http = "/health" }
}
