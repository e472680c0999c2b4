service "shop" {}
consul {
  retry_join = ["consul.example.com", " "]
}
