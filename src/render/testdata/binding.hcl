service_binding = "our-consul"

service "a" {}
