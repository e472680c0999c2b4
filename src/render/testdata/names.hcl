service "shop-2" {
  upstream "Billing.V2" { service = "billing.v2" }
  upstream "a_b-c" {}
}
