service "shop" {}
envoy { admin_port = 8500 }
