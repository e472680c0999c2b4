service "shop" {
  enable_tag_override = "yes"
}
