service "shop" {}

lifecycle {
  hold_app      = false
  start_timeout = "2m"
  drain_delay   = "0s"
  drain_timeout = "1500ms"
  port_check    = true
}
