service "shop" {
  tags = [regex("[0-9]+", "none")]
}
