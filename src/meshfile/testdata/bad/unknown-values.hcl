service "shop" {
  protocol = "HTTP"
  check "health" {
    http   = "/health"
    method = "get"
    status = "green"
  }
  sidecar {
    mesh_gateway = "both"
    expose {
      path "/metrics" {
        listener_port = 9102
        protocol      = "https"
      }
    }
    access_logs {
      type = "syslog"
    }
  }
  upstream "billing" {
    protocol     = "udp"
    balance      = "round_robin"
    mesh_gateway = "on"
  }
}
consul {
  log_level = "warning"
}
envoy {
  log_level = "warn"
}
