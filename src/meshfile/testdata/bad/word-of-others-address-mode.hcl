service "shop" {
  address_mode = "alloc"
}
