service "shop" {}
consul {
  memory = 8
}
envoy {
  memory = 100000
}
