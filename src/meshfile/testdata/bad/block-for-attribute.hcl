service "shop" {
  meta {
    team = "a"
  }
}
