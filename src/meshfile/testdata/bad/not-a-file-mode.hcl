service "shop" {
  upstream "billing" {
    socket      = "/home/vcap/tmp/billing.sock"
    socket_mode = "rw-------"
  }
}
