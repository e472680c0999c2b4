service "shop" {
  port = 9000
}

service "jobs" {
  process = "worker"
  port    = 9000
  check "up" { tcp = true }
}
