service "shop" {
  upstream "a" {
    peer       = "east"
    datacenter = "dc2"
  }
  upstream "b" {
    prepared_query = "q"
    service        = "b"
  }
  upstream "c" {
    prepared_query = "q"
    peer           = "east"
  }
  upstream "d" {
    socket = "/home/vcap/tmp/d.sock"
    port   = 9001
  }
  upstream "e" {
    socket  = "/home/vcap/tmp/e.sock"
    address = "127.0.0.1"
  }
}
