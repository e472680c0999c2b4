service "shop" {
  sidecar {
    local_service_socket_path = "tmp/shop.sock"
    access_logs {
      type = "file"
      path = "logs/access.log"
    }
  }
  upstream "billing" {
    socket = "~/billing.sock"
  }
}
