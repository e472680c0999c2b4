service "shop" {
  protocol = "http"
  sidecar {
    access_logs {
      json_format = jsonencode({ path = "%REQ(:PATH)%", status = "%RESPONSE_CODE%", app = app.name })
    }
  }
}
