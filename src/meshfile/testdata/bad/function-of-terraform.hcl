service "shop" {
  tags = [title("a")]
}
