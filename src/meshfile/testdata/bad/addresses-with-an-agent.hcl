service "shop" {}

consul {
  addresses = ["consul.example.com"]
}
