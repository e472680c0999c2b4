service "web" {
  protocol = "htpp"
  check "c" {
    http = "health"
    interval = "5"
    timeout = "1ms"
  }
  check "none" {}
  check "both" {
    tcp = true
    grpc = ""
  }
  check "c" { tcp = true }
}
