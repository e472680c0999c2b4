service "shop" {
  check "me" { alias = "shop" }
}
