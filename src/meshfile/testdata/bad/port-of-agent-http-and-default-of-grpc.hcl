service "shop" {}
consul {
  ports { http = 8502 }
}
