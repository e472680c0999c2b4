service "shop" { port = 2222 }
service "admin" {
  port = 61001
  upstream "a" { port = 61443 }
}
