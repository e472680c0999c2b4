service "renderer" {
  process  = "renderer"
  protocol = "grpc"
  check "alive" { ttl = "20s" }
  sidecar {
    local_service_socket_path = "/home/vcap/tmp/renderer.sock"
  }
}
