service "shop" {}
envoy { admin_port = 21000 }
