service "shop" {
  name = "shop-${app.space}"
  upstream "stock" { service = "stock-${app.space}" }
}

service "admin" {
  name = "admin-${app.space}"
  id   = "admin"
  port = 9000
  check "shop" { alias = "shop" }
}
