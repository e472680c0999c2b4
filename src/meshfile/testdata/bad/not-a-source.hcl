service "shop" {}
consul {
  source = "http://example.com/consul.zip"
  sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
}
envoy {
  source = "../envoy"
}
