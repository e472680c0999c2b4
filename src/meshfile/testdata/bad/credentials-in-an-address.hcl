service "shop" {}
consul {
  source = "ftp://user:canary1@example.com/consul.zip?token=canary2"
}
envoy {
  source = "s3::https://example.com/envoy?aws_access_key_secret=canary3"
  sha256 = "https://user:canary4@example.com"
}
