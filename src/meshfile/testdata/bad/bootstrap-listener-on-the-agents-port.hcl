service "web" {}
envoy {
  bootstrap = {
    envoy_extra_static_listeners_json = jsonencode({
      name = "x", address = { socket_address = { address = "127.0.0.1", port_value = 8500 } }
    })
  }
}
