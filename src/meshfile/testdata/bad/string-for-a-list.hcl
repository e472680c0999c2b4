service "shop" {
  tags = "v1,v2"
}
