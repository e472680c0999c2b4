service "shop" {}
envoy {}
envoy {}
