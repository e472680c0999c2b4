service "web" {
  upstream "web" {}
  upstream "my-api" {}
  upstream "my.api" {}
  upstream "../x" {}
}
service "web" { port = 9000 }
service "third" {}
