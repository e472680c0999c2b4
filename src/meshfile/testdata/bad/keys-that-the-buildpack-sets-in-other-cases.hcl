service "shop" {}
consul {
  config = { NODE_NAME = "x", Acl = { enabled = true } }
}
