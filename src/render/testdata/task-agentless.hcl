service "shop" {}

task "report" {
  upstream "stock" {}
}

consul {
  mode      = "agentless"
  addresses = ["consul.example.com"]
  ports { http = 9501 }
}
