service "shop" {
  tags = [upper("a", "b")]
}
