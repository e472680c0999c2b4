service "web" {}
consul {
  retry_join = []
  datacenter = "DC 1"
}
