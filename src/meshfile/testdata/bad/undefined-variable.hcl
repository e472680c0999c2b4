service "shop" {
  tags = [space, var.colour]
}
