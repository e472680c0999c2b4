service "shop" {
  protocol = "http"
  check "health" { http = "/health" }
  check "rpc" { grpc = "" }
  sidecar {
    expose { checks = true }
  }
}
