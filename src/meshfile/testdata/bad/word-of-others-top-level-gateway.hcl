service "shop" {}
gateway "api" "edge" {}
