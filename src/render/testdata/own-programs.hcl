service "shop" {}

consul {
  version = "1.2.3"
  source  = "git::https://git.example.com/programs//consul_1.2.3_linux_amd64.zip?ref=v1.2.3"
  sha256  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

envoy {
  source = "vendor/envoy"
}
