service "shop" {
  sidecar {
    access_logs {
      path = "/home/vcap/logs/access.log"
    }
  }
}
