service "shop" {
  protocol = "http"
  check "get" {
    http   = "/probe"
    method = "GET"
    status = "passing"
  }
  check "head" {
    http   = "/probe"
    method = "HEAD"
    status = "warning"
  }
  check "put" {
    http   = "/probe"
    method = "PUT"
    status = "critical"
  }
  check "patch" {
    http   = "/probe"
    method = "PATCH"
    status = "passing"
  }
  check "delete" {
    http   = "/probe"
    method = "DELETE"
    status = "passing"
  }
  check "options" {
    http   = "/probe"
    method = "OPTIONS"
    status = "passing"
  }
}

consul { log_level = "trace" }
envoy { log_level = "off" }
