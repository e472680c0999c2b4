service "shop" {
  sidecar {
    check "ready" { tcp = true }
    check "alias" { tcp = true }
  }
}
