service "shop" {
  check "health" {
    http    = "/health"
    headers = { Accept = "text/plain" }
  }
}
