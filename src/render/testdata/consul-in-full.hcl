service_binding = "mesh-credentials"

service "shop" {}

consul {
  version        = "~> 1.22"
  retry_join     = ["10.0.0.1", "10.0.0.2:8301", "[2001:db8::1]:8301", "provider=aws tag_key=consul tag_value=server"]
  retry_interval = "2500ms"
  retry_max      = 30
  datacenter     = "cf-prod_1"
  node_meta      = { platform = "cloud-foundry", space = app.space }
  log_level      = "debug"
  memory         = 96
  config = {
    enable_debug         = true
    gossip_lan           = { probe_interval = "2s", retransmit_mult = 5 }
    limits               = { http_max_conns_per_client = 400 }
    telemetry            = { disable_hostname = true, prometheus_retention_time = "60s" }
    discard_check_output = true
  }
  ports {
    http     = 9500
    grpc     = 9502
    serf_lan = 7301
  }
}
