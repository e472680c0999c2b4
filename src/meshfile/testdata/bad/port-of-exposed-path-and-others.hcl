service "shop" {
  sidecar {
    expose {
      path "/a" { listener_port = 8080 }
      path "/b" { listener_port = 21000 }
      path "/c" { listener_port = 19000 }
      path "/d" { listener_port = 8502 }
    }
  }
}
