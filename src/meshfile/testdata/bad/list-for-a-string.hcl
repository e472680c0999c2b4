service "shop" {
  protocol = ["http"]
}
