service "shop" {
  tags = ["a" "b"]
}
