service "shop" {}

lifecycle {
  hold_app      = "perhaps"
  start_timeout = "1s"
  drain_delay   = "5s"
  drain_timeout = "soon"
  grace         = "5s"
  grace_period  = "3s"
}
