service "shop" {}

consul {
  version = "1.22.7"
  source  = "https://artifacts.example.com/consul_1.22.7_linux_amd64.zip"
  sha256  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

envoy {
  source = "vendor/envoy"
}
