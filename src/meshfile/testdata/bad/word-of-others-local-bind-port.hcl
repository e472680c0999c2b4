service "shop" {
  upstream "x" {
    local_bind_port = 9001
  }
}
