service "web" { port = 8080 }
service "jobs" {
  process = "worker"
  port    = 8080
}
