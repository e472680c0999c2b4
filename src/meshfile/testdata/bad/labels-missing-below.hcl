service "shop" {
  tagged_address {
    address = "a"
  }
  sidecar {
    expose {
      path {
        listener_port = 9102
      }
    }
  }
}
