service "shop" {
  check "up" {
    tcp                      = true
    failures_before_warning  = 5
    failures_before_critical = 3
  }
  check "other" {
    tcp                     = true
    failures_before_warning = 1
  }
}
