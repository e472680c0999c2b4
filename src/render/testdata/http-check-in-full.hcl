service "search" {
  protocol = "http"

  check "query" {
    http                              = "/search?q=health&size=1"
    method                            = "POST"
    headers                           = { Accept = ["application/json"], X-Probe = ["mesh", "consul"] }
    body                              = jsonencode({ query = "<health>", size = 1 })
    disable_redirects                 = true
    interval                          = "15s"
    timeout                           = "3s"
    success_before_passing            = 2
    failures_before_warning           = 1
    failures_before_critical          = 3
    deregister_critical_service_after = "90m"
    status                            = "warning"
    notes                             = "One hit in the index is enough."
  }
}
