service "web" {
  upstream "billing" {
    config = { limits = { max_connections = "few" } }
  }
}
