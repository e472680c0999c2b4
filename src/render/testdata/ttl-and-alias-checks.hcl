service "web" {
  check "own" {
    ttl    = "30s"
    status = "critical"
    notes  = "The app reports by itself."
  }
  check "cache" { alias = "cache" }
}

service "cache" {
  id   = "local-cache"
  port = 6379
  check "up" { tcp = true }
}
