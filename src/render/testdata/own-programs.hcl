service "shop" {}

consul {
  version = "1.22.7"
  source  = "git::https://git.example.com/programs//consul_1.22.7_linux_amd64.zip?ref=v1.22.7"
  sha256  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

envoy {
  source = "vendor/envoy"
}
