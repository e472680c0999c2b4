service "shop" {
  sidecar { port = 21001 }
}
service "admin" { port = 9000 }
