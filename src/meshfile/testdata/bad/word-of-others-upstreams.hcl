service "shop" {
  sidecar {
    upstreams = []
  }
}
