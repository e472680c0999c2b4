service "shop" { port = 8301 }
