service "shop" {
  canary_tags = ["a"]
}
