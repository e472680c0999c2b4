service "shop" {
  check "up" { tcp = true }
  sidecar {
    local_service_socket_path = "/home/vcap/tmp/shop.sock"
  }
}
