service "shop" {
  check "up" {
    tcp               = true
    method            = "GET"
    headers           = { Accept = ["*/*"] }
    body              = "x"
    disable_redirects = true
  }
  check "datagram" {
    udp             = true
    tls             = true
    tls_server_name = "shop"
    tls_skip_verify = true
  }
  check "own" {
    ttl      = "30s"
    interval = "5s"
    timeout  = "1s"
  }
}
