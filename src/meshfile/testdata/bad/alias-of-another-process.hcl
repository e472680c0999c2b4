service "shop" {
  check "jobs" { alias = "jobs" }
}
service "jobs" {
  process = "worker"
}
