service "shop" {
  sidecar = { port = 21000 }
  upstream = ["billing"]
}
