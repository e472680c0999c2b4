service "orders" {
  protocol = "http"
  tags     = ["v3", "public"]
  meta     = { team = "checkout", tier = "1" }

  check "health" { http = "/actuator/health" }
}
