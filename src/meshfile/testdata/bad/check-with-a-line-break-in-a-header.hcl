service "web" {
  check "up" {
    http    = "/health"
    headers = { X-Probe = ["mesh", "1\r\nX-Admin: true"] }
  }
}
