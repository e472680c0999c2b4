service "shop" {}
consul {
  source = "https://example.com/consul.zip"
  sha256 = "abc"
}
