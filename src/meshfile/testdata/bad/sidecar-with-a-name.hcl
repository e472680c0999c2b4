service "shop" {
  sidecar "proxy" {}
}
