service "shop" {
  process = { web = true }
}
