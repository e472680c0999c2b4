service "shop" {
  sidecar {
    check "up" { tcp = true }
    check "up" { http = "/health" }
  }
}
