service "shop" {
  gateway {}
}
