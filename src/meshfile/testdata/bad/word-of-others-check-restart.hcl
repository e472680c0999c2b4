service "shop" {
  check_restart {
    limit = 3
  }
}
