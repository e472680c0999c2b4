service "shop" { port = 9000 }
service "admin" { port = 9000 }
