service "shop" {}

service "admin" {
  port = 9000
}

envoy {
  version     = "1.38.x"
  concurrency = 4
  log_level   = "info"
  admin_port  = 19500
  extra_args  = ["--component-log-level", "upstream:debug,http:info", "--drain-time-s", "5"]
  memory      = 256
  bootstrap = {
    envoy_stats_flush_interval = "5s"
    envoy_extra_static_clusters_json = jsonencode({
      name            = "zipkin"
      type            = "STRICT_DNS"
      connect_timeout = "1s"
      load_assignment = { cluster_name = "zipkin", endpoints = [] }
    })
  }
  tracing_json = jsonencode({
    http = {
      name = "envoy.tracers.zipkin"
      typedConfig = {
        "@type"                    = "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig"
        collector_cluster          = "zipkin"
        collector_endpoint         = "/api/v2/spans"
        collector_endpoint_version = "HTTP_JSON"
      }
    }
  })
  metrics {
    prometheus = "0.0.0.0:9102"
    statsd     = "udp://127.0.0.1:8125"
    dogstatsd  = "unix:///home/vcap/tmp/dsd.sock"
  }
}
