service "frontend" {
  protocol = "http"
  tags     = ["v2", "a<b"]
  meta     = { team = "rides", "z" = "last", "a" = "first" }

  check "health" {
    http     = "/health?full=1&x=2"
    interval = "5s"
  }
  check "alive" { tcp = true }
  check "rpc" { grpc = "rides.Frontend" }
  check "server" { grpc = "" }

  upstream "customer" { port = 8081 }
  upstream "route" {}
  upstream "billing" { datacenter = "dc2" }
}

service "jobs" {
  process = "worker"
  port    = 9000
}

consul {
  version    = "1.22.x"
  retry_join = ["0.consul-server.apps.internal", "1.consul-server.apps.internal"]
  datacenter = "cf"
}

envoy {
  version = "1.38.x"
}
