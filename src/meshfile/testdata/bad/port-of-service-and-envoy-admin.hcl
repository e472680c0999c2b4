service "shop" { port = 19000 }
