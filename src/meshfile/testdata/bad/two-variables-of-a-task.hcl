service "shop" {
  upstream "stock" { port = 9001 }
}

task "report" {
  upstream "stock" { port = 9002 }
}
