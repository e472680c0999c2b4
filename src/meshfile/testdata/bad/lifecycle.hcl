service "shop" {}

lifecycle {
  hold_app      = "perhaps"
  start_timeout = "1s"
  drain_delay   = "5s"
  drain_timeout = "soon"
  grace_period  = "3s"
}
