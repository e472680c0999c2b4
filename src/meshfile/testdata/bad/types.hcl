service "web" {
  port = "eighty"
  tags = "v2"
}
