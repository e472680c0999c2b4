service "shop" {
  check "a" {
    ttl = "0s"
  }
  check "b" {
    tcp                               = true
    interval                          = "10ms"
    timeout                           = "99ms"
    deregister_critical_service_after = "30s"
  }
  upstream "billing" {
    connect_timeout = "1ms"
  }
}
consul {
  retry_interval = "0s"
}
