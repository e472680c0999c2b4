service "shop" {
  task { addresses = [] }
}
