service "shop" {
  sidecar {
    transparent_proxy {}
  }
}
