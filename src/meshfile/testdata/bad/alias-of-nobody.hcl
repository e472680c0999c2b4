service "shop" {
  check "db" { alias = "database" }
}
