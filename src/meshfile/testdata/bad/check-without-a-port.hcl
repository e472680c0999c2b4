service "jobs" {
  process = "worker"
  check "up" { tcp = true }
  check "health" { http = "/health" }
  check "elsewhere" { http = "http://127.0.0.1:9000/health" }
  sidecar {
    check "rpc" { grpc = "" }
  }
}
