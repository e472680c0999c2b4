service "shop" {
  tagged_address "wan" { address = "a.example.com" }
  tagged_address "wan" { address = "b.example.com" }
}
