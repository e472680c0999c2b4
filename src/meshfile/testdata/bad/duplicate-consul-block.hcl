service "shop" {}
consul {
  datacenter = "dc1"
}
consul {
  datacenter = "dc2"
}
