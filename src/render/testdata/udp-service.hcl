service "syslog" {
  process = "collector"
  port    = 5514

  check "answers" {
    udp      = true
    interval = "20s"
  }
}
