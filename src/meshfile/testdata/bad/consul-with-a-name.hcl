service "shop" {}
consul "dc1" {}
