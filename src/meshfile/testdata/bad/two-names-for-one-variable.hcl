service "shop" {
  upstream "my-api" {}
  upstream "my.api" {}
}
