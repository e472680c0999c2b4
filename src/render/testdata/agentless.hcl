service "shop" {
  protocol = "http"
  meta     = { team = "rides" }

  check "health" { http = "/health" }

  upstream "route" { port = 8501 }
}

consul {
  mode      = "agentless"
  addresses = ["consul.example.com", "10.0.0.7", "2001:db8::1", "[2001:db8::2]"]
  node_meta = { zone = "a" }

  ports {
    grpc = 9503
  }
}
