service "shop" {
  check "up" {
    http = "http://127.0.0.1:9000/health"
    tls  = true
  }
}
