service "shop" {
  sidecar {
    access_logs {
      type = "file"
    }
  }
}
