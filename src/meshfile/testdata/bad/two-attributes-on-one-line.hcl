service "shop" {
  upstream "billing" { port = 9001 protocol = "http" }
}
