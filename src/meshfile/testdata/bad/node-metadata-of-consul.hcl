service "shop" {}
consul {
  node_meta = { "consul-version" = "1" }
}
