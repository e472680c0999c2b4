service "shop" "web" {}
