service "shop" {
  name = slug(["a"])
}
