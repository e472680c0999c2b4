service "php" {
  protocol = "http"
  sidecar {
    local_service_socket_path = "/home/vcap/tmp/php.sock"
  }
}
