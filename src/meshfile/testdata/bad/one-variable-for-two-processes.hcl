service "shop" {
  upstream "billing" { port = 9001 }
}
service "jobs" {
  process = "worker"
  upstream "billing" { port = 9002 }
}
