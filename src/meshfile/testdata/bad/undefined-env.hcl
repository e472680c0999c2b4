service "shop" {
  tags = [env.COLOR]
}
