service "legacy" {
  port = 7000
  check "health" { http = "/health" }
  sidecar {
    local_service_address = "::1"
  }
  upstream "billing" {
    address = "::1"
    port    = 9001
  }
}
