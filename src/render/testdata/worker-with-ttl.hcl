service "importer" {
  process = "import"
  check "alive" { ttl = "1m" }
  upstream "orders" { protocol = "http" }
}
