service "shop" {
  protocol = "http"
}

service "shop-admin" {
  protocol = "http"
  port     = 9000
  check "health" { http = "/admin/health" }
}

service "shop-metrics" {
  protocol = "http"
  port     = 9100
}
