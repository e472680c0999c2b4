service "shop" {
  task {}
}

service "mailer" {
  process = "worker"
  task {}
}

task "report" {}
