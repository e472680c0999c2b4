service "shop" {
  upstream "me" { service = "shop" }
  upstream "shop" {}
  upstream "other-dc" {
    service    = "shop"
    datacenter = "dc2"
  }
}
