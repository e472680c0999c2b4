service "shop" {
  tags = [env["API_TOKEN"]]
}
