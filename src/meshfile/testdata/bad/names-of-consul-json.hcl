service {
  name = "shop"
  connect {
    sidecar_service {}
  }
}
