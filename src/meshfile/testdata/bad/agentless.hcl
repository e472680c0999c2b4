service "shop" {
  enable_tag_override = true
  weights { warning = 2 }
  check "ping" { h2ping = true }
  check "beat" { ttl = "10s" }
  check "rpc" {
    grpc = ""
    tls  = true
  }
  check "port" {
    tcp = true
    tls = true
  }
  check "health" {
    http                              = "/health"
    failures_before_warning           = 2
    deregister_critical_service_after = "10m"
    status                            = "passing"
  }
  sidecar {
    expose { checks = true }
  }
}

consul {
  mode       = "agentless"
  addresses  = []
  version    = "1.22.x"
  retry_join = ["consul-server.apps.internal"]
  datacenter = "cf"
  config     = { log_json = true }
  ports { serf_lan = 8401 }
}

envoy {
  bootstrap = { envoy_bootstrap_json_tpl = "{}" }
}
