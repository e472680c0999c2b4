service "shop" {
  name = slug("(!)")
}
