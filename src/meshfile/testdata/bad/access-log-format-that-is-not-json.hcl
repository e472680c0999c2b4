service "shop" {
  sidecar {
    access_logs {
      json_format = "%PROTOCOL%"
    }
  }
}
