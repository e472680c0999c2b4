service "shop" {
  protocol = "http"
  sidecar {
    access_logs {
      type                  = "file"
      path                  = "/home/vcap/logs/envoy.log"
      disable_listener_logs = true
      text_format           = "[%START_TIME%] %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%\n"
    }
  }
}

service "quiet" {
  port = 9000
  sidecar {
    access_logs { enabled = false }
  }
}
