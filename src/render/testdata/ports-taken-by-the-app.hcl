service "consul-like" {
  port = 8500
  upstream "billing" { port = 8502 }
}

consul {
  ports {
    http = 18500
    grpc = 18502
  }
}
