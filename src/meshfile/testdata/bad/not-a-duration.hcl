service "shop" {
  check "a" {
    ttl = "thirty seconds"
  }
  check "b" {
    tcp                               = true
    interval                          = "5"
    timeout                           = ""
    deregister_critical_service_after = "1d"
  }
  upstream "billing" {
    connect_timeout = "5 s"
    passive_health_check {
      interval           = "-1s"
      base_ejection_time = "half an hour"
    }
  }
}
consul {
  retry_interval = "1"
}
