service "shop" {}
service "admin" {}
