service "web" {
  upstream "billing" {
    config = { limits = 5 }
  }
}
