service "shop" {}
consul {
  ports {
    http     = 9500
    grpc     = 9500
    serf_lan = 9500
  }
}
