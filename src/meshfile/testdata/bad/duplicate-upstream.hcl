service "shop" {
  upstream "billing" {}
  upstream "billing" { datacenter = "dc2" }
}
