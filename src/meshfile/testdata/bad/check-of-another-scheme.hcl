service "shop" {
  check "health" {
    http = "ftp://127.0.0.1/health"
  }
  check "nowhere" {
    http = "http://"
  }
}
