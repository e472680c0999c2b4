service "shop" {
  upstream "billing" { datacenter = "DC2" }
}
consul {
  datacenter = "my dc"
}
