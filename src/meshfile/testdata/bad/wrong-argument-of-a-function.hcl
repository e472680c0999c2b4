service "shop" {
  tags = [join(",", "a")]
  meta = { a = upper(["a"]), b = substr("abc") }
}
