service "shop" {
  port = 9000
  sidecar { port = 9000 }
}
