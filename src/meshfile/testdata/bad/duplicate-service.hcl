service "shop" {
  port = 9000
}
service "shop" {
  port    = 9001
  process = "worker"
}
