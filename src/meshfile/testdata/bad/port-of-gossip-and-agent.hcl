service "shop" {}
consul {
  ports { serf_lan = 8500 }
}
