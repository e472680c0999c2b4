service "shop" {
  weights {
    passing = -1
    warning = 3000000000
  }
  check "up" {
    tcp                      = true
    success_before_passing   = -1
    failures_before_warning  = -2
    failures_before_critical = -3
  }
  upstream "billing" {
    limits {
      max_connections         = -1
      max_pending_requests    = -1
      max_concurrent_requests = -1
    }
    passive_health_check {
      max_failures = -1
    }
  }
}
consul {
  retry_max = -1
}
