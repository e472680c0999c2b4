service "shop" {
  tags = [regex_replace("a", "[", "b")]
}
