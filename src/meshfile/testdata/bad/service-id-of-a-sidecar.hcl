service "shop" {}
service "shop-sidecar-proxy" {
  port = 9000
}
