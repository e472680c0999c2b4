service "web" {}
service "admin" { port = 9090 }
envoy {
  bootstrap = { envoy_prometheus_bind_addr = "0.0.0.0:9102" }
}
