service "shop" {}
upstream "billing" {}
