service "shop" {
  weights {}
  weights {}
  sidecar {
    expose {}
    expose {}
  }
  sidecar {}
  upstream "billing" {
    limits {}
    limits {}
  }
}
