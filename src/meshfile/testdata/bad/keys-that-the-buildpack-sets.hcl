service "shop" {}
consul {
  config = {
    acl          = { enabled = true }
    node_name    = "x"
    bind_addr    = "10.0.0.1"
    ports        = { http = 8501 }
    enable_debug = true
  }
}
