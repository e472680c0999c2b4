service "shop" {
  connect {
    sidecar_service {}
  }
  token = "b1gs33cr3t"
  check "script" { args = ["/bin/true"] }
  upstream "billing" { local_bind_port = 9000 }
}
consul {
  ports { dns = 8600 }
}
