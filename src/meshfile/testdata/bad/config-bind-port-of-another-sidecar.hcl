service "web" {
  sidecar { config = { bind_port = 21001 } }
}
service "admin" { port = 9090 }
