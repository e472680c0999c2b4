service "shop" {
  process = regex("(x", app.name)
}
