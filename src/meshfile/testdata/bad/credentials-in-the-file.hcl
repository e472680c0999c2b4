service "shop" {}
consul {
  token  = "b1gs33cr3t"
  config = { acl = { tokens = { agent = "b1gs33cr3t" } } }
}
