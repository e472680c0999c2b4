service "stream" {
  protocol = "http2"

  check "ping" {
    h2ping   = true
    interval = "10s"
  }
}
