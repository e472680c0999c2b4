service "shop" {
  address = "https://shop.example.com/"
  tagged_address "wan" { address = "" }
}
