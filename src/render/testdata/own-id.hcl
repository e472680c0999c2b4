service "shop" {
  id   = "shop-blue"
  meta = { colour = env.COLOUR }
  check "up" { tcp = true }
}
