service "shop" {}
consul {
  version = "latest"
}
envoy {
  version = "v1.x.y.z"
}
