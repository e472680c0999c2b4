service "shop" {}
service "admin" { port = 9000 }
envoy { admin_port = 8499 }
