service "web" {
  upstream "a" { port = 8500 }
  upstream "b" { port = 70000 }
  upstream "c" { port = 8081 }
  upstream "d" { port = 8081 }
  upstream "e" { port = 8080 }
  upstream "f" { port = 0 }
}
