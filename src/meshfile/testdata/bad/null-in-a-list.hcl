service "shop" {
  tags = ["a", null]
  meta = { a = null }
}
