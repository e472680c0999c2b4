service "shop" {}
service "admin" { port = 8080 }
