service "shop" {
  sidecar {
    config = { a = 1e400 }
  }
}
