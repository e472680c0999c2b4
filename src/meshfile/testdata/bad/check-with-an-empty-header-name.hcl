service "web" {
  check "up" {
    http = "/health"
    headers = {
      Accept = ["*/*"]
      ""     = ["1"]
    }
  }
}
