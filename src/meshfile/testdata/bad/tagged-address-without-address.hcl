service "shop" {
  tagged_address "wan" {
    port = 80
  }
}
