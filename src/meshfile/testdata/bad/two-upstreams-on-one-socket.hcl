service "shop" {
  upstream "billing" { socket = "/home/vcap/tmp/x.sock" }
  upstream "search" { socket = "/home/vcap/tmp/x.sock" }
}
