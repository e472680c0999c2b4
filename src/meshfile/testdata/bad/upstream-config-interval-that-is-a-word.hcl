service "web" {
  upstream "billing" {
    config = { PassiveHealthCheck = { Interval = "often" } }
  }
}
