service "shop" {
  id = "one"
}
service "admin" {
  id   = "one"
  port = 9000
}
