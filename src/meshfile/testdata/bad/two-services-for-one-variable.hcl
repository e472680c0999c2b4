service "my-shop" {}
service "my_shop" {
  port = 9000
}
