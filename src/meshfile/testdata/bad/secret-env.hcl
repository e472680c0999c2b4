service "shop" {
  tags = [env.API_TOKEN]
}
consul {
  node_meta = { all = env.VCAP_SERVICES }
}
