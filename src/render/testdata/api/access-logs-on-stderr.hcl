service "shop" {
  protocol = "http"
  sidecar {
    access_logs { type = "stderr" }
  }
}
