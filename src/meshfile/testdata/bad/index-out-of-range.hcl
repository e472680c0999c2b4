service "shop" {
  process = split("-", app.name)[3]
}
