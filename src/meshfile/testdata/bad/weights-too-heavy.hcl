service "shop" {
  weights {
    passing = 70000
    warning = 65536
  }
}
