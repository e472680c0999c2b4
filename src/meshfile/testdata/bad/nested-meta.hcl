service "shop" {
  meta = { owner = { team = "a" } }
}
