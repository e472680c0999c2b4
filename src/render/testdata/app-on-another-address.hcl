service "legacy" {
  port = 7000
  check "up" { tcp = true }
  check "health" { http = "/health" }
  sidecar {
    local_service_address = "127.0.0.2"
  }
}
