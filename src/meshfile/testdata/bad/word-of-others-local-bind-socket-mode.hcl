service "shop" {
  upstream "db" {
    socket                 = "/tmp/db.sock"
    local_bind_socket_mode = "0600"
  }
}
