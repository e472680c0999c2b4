service "stream" {
  protocol = "http2"
  port     = 8443

  check "ping" {
    h2ping          = true
    tls             = true
    tls_skip_verify = true
  }
}
