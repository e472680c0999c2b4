service "shop" {}
consul {
  source = "https://user:can/ary1@example.com/consul.zip"
}
envoy {
  source = "https://user:p@canary2@example.com/envoy"
}
