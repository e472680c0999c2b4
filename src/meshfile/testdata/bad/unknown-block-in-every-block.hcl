servce "shop" {}
service "shop" {
  chek "health" {
    http = "/health"
  }
  check "health" {
    http = "/health"
    header {
      x = "1"
    }
  }
  sidecar {
    exposed {}
    expose {
      paths "/metrics" {}
    }
  }
  upstream "billing" {
    limit {}
  }
}
consul {
  port {}
}
envoy {
  metric {}
}
