service "web" {
  check "up" {
    http    = "/health"
    headers = { "X-Probe:" = ["1"] }
  }
}
