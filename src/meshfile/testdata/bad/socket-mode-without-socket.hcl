service "shop" {
  upstream "billing" { socket_mode = "0660" }
}
