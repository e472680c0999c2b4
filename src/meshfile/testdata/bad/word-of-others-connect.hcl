service "shop" {
  connect {
    sidecar_service {}
  }
}
