service "shop" {
  sidecar {
    local_service_socket_path = "/home/vcap/tmp/x.sock"
  }
  upstream "search" { socket = "/home/vcap/tmp/x.sock" }
}
