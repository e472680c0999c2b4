service "jobs" {
  process = "worker"
  check "up" { tcp = true }
}
service "socket" {
  check "up" { tcp = true }
  sidecar { local_service_socket_path = "/home/vcap/tmp/app.sock" }
}
consul { mode = "agentless" }
