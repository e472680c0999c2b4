service "shop" {
  sidecar {
    access_logs {
      json_format = jsonencode({ path = "%REQ(:PATH)%" })
      text_format = "%REQ(:PATH)%"
    }
  }
}
