service "gateway" {
  protocol = "http"
  upstream "orders" { protocol = "http" }
  upstream "stock" { protocol = "grpc" }
  upstream "stream" { protocol = "http2" }
  upstream "db" {
    protocol = "tcp"
    balance  = "none"
  }
}
