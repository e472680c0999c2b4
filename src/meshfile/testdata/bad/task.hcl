service "report-task" {}

task "report" {
  start_timeout = "1s"
  addresses     = ["consul.example.com:8501", "https://consul.example.com"]
  required      = "sometimes"
  ports {
    http     = 80000
    serf_lan = 8301
  }
  upstream "stock" { port = 19000 }
  upstream "stock" {}
  upstream "billing" { port = 21000 }
  upstream "report-task" {}
}
