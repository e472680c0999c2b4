service "shop" {
  sidecar {
    expose {
      path "/metrics" {}
    }
  }
}
