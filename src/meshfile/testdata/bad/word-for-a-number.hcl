service "shop" {
  port = "http"
}
