service “shop” {}
