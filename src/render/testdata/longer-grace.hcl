service "shop" {}

lifecycle {
  grace         = "1m"
  drain_timeout = "12s"
}
