service "shop" {
  upstream "billing" {}
}

service "jobs" {
  process = "worker"
  upstream "billing" {}
}
