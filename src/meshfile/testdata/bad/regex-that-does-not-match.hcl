service "shop" {
  process = regex("^[0-9]+$", app.name)
}
