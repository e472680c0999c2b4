service "jobs" {
  process = "worker"

  check "manager" { http = "http://127.0.0.1:9000/live" }
  check "remote" { http = "https://status.example.com/jobs" }
}
