service "shop" {
  meta = { team = "a", team = "b", "bad key" = "x", "worse key" = "y" }
}
