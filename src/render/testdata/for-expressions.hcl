service "shop" {
  meta = { for k in ["a", "b"] : k => upper(k) }
}
