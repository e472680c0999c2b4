service "Shop" {
  upstream "Billing" {}
}
