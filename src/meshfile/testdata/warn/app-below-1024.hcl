service "shop" {
  port = 80
  tagged_address "wan" {
    address = "shop.example.com"
    port    = 443
  }
}
consul {
  mode = "agentless"
  ports { http = 443 }
}
