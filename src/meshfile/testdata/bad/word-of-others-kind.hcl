service "shop" {
  kind = "api-gateway"
}
