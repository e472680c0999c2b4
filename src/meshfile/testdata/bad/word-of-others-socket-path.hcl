service "shop" {
  socket_path = "/tmp/a.sock"
}
