service "shop" { port = 21000 }
