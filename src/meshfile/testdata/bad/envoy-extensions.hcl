service "shop" {
  sidecar {
    envoy_extension "builtin/luna" {}
    envoy_extension "builtin/lua" {
      envoy_version = "new"
    }
    envoy_extension "builtin/lua" {
      arguments = ["a"]
    }
  }
}
