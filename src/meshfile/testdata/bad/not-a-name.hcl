service "my shop" {
  id      = "-shop"
  process = ""
  check "a/b" { tcp = true }
  tagged_address "w an" { address = "a" }
  upstream "billing." {
    service   = "bil ling"
    namespace = "a/b"
    partition = "a b"
  }
  upstream "query" {
    prepared_query = "*"
  }
  upstream "far" {
    peer = "x;y"
  }
}
