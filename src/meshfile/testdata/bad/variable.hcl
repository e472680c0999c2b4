service "web" {
  port = app.port
}
