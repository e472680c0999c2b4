service "shop" {
  upstream "billing" {}
  upstream "invoices" { service = "billing" }
  upstream "far" {
    service    = "billing"
    datacenter = "dc2"
  }
}
