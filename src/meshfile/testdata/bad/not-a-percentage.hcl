service "shop" {
  upstream "billing" {
    passive_health_check {
      enforcing_consecutive_5xx = 101
      max_ejection_percent      = -1
    }
  }
}
