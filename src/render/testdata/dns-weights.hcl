service "shop" {
  weights {
    passing = 10
    warning = 0
  }
}

service "canary" {
  port = 9000
  weights {}
}
