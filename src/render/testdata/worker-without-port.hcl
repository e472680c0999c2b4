service "mailer" {
  process = "worker"

  upstream "smtp" { port = 2525 }
  upstream "templates" {}
}
