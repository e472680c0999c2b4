service "web" {
  sidecar {
    check "up" {
      http    = "/health"
      headers = { "Bad Name" = ["1"] }
    }
  }
}
