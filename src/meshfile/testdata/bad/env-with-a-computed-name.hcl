service "shop" {
  tags = [env[lower("COLOUR")]]
}
