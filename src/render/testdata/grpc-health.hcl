service "inventory" {
  protocol = "grpc"

  check "whole" {
    grpc     = ""
    interval = "5s"
    timeout  = "2s"
  }
  check "stock" { grpc = "shop.inventory.v1.Stock" }
}
