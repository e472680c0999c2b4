service "web" {
  upstream "billing" {
    config = { connect_timeout_ms = "2s" }
  }
}
