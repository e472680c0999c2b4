task "report" {
  required      = false
  start_timeout = "1m"
  addresses     = ["consul.example.com", "[fd00::1]"]
  ports {
    http = 9501
    grpc = 9503
  }
  upstream "billing" {}
  upstream "stock" { port = 9001 }
}

envoy {
  metrics { prometheus = "0.0.0.0:9102" }
}
