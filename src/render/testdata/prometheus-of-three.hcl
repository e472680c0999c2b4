service "a" {}
service "b" { port = 9000 }
service "c" {
  process = "worker"
}

envoy {
  metrics { prometheus = "127.0.0.1:20200" }
}
