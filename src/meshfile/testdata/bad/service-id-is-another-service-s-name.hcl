service "shop" {}
service "admin" {
  id      = "shop"
  process = "worker"
}
