service "shop" {
  protocol = "http"
  check "health" { http = "/up" }
  upstream "billing" {}
}

service "shop-worker" {
  process = "worker"
  upstream "billing" {}
  upstream "mailer" {}
}

service "shop-clock" {
  process = "clock"
}
