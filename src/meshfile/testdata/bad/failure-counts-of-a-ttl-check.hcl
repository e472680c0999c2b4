service "shop" {
  check "own" {
    ttl                      = "30s"
    success_before_passing   = 2
    failures_before_critical = 2
  }
}
