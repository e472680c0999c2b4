service "shop" {
  port     = null
  protocol = null
  meta     = null
  tags     = null
  check "up" {
    tcp      = true
    interval = null
  }
  sidecar {
    config = null
  }
}
consul {
  retry_join = null
}
