service "shop" {}
consul {
  ports {
    http = 8600
    grpc = 8600
  }
}
