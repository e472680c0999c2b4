service "shop" { port = 7301 }
consul {
  ports { serf_lan = 7301 }
}
