service "shop" { port = 8500 }
