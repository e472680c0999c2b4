service "shop" {
  upstream "stock" { port = 9001 }
  sidecar {
    mesh_gateway = "local"
    config       = { max_inbound_connections = 10 }
  }
  task {}
}

consul {
  retry_join = ["consul-1.example.com:9301", "10.0.0.7", "[fd00::1]:8301"]
}

lifecycle { hold_app = false }
