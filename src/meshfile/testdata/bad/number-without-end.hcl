service "shop" {
  port = 1e99999999999
}
