service "vault-front" {
  port = 8443

  check "web" {
    http            = "/healthz"
    tls             = true
    tls_server_name = "vault.example.com"
  }
  check "port" {
    tcp             = true
    tls             = true
    tls_server_name = "vault.example.com"
    tls_skip_verify = true
  }
  check "rpc" {
    grpc            = "vault.Health"
    tls             = true
    tls_server_name = "vault.example.com"
  }
}
