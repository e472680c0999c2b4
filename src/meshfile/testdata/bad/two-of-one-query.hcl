service "shop" {
  upstream "near" { prepared_query = "nearest" }
  upstream "close" { prepared_query = "nearest" }
}
