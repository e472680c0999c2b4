service "shop" {
  sidecar {
    check "app" { tcp = true }
    check "by-hand" { ttl = "1m" }
    check "self" {
      http                     = "/health"
      failures_before_critical = 2
    }
  }
}
