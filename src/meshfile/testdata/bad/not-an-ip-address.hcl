service "shop" {
  sidecar {
    local_service_address = "localhost"
  }
}
