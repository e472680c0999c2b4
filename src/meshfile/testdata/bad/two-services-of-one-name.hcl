service "web" {}
service "admin" {
  name = "web"
  id   = "admin"
  port = 9000
}
service "jobs" {
  process = "worker"
  name    = "web"
  id      = "jobs"
}
service "other" {
  process = "worker"
  name    = "not a name"
  upstream "self" { service = "not a name" }
}
