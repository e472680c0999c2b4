service "shop" {
  upstream "billing" { peer = "finance" }
  upstream "billing-here" { service = "billing" }
}
