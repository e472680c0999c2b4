service "shop.v2" {
  protocol = "http"
}
service "admin" {
  port = 9000
}
