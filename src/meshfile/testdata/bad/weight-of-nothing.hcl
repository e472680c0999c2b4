service "shop" {
  weights {
    passing = 0
  }
}
