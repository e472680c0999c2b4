service "shop" {
  address             = "shop.apps.internal"
  enable_tag_override = true
  tags                = ["primary"]

  tagged_address "lan" { address = "10.0.0.7" }
  tagged_address "wan" {
    address = "shop.example.com"
    port    = 443
  }
  tagged_address "lan_ipv6" { address = "2001:db8::7" }
}
