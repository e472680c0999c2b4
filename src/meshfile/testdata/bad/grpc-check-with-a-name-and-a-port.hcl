service "web" {
  protocol = "grpc"
  check "up" { grpc = "localhost:6666" }
}
