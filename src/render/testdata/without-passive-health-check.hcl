service "shop" {
  upstream "billing" {
    passive_health_check { max_failures = 0 }
  }
  upstream "search" {
    passive_health_check { max_failures = 10 }
  }
}
