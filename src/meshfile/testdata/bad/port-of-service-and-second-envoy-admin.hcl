service "shop" {}
service "admin" { port = 19001 }
