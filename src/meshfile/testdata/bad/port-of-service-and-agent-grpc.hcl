service "shop" { port = 8502 }
