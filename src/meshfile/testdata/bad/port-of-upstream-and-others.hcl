service "shop" {
  port = 9000
  sidecar {
    port = 9001
    expose {
      path "/metrics" { listener_port = 9002 }
    }
  }
  upstream "a" { port = 9000 }
  upstream "b" { port = 9001 }
  upstream "c" { port = 9002 }
  upstream "d" { port = 8502 }
  upstream "e" { port = 19000 }
  upstream "f" { port = 8301 }
  upstream "g" { port = 9102 }
  upstream "h" { port = 9102 }
}
envoy {
  metrics { prometheus = "127.0.0.1:9102" }
}
