service "shop" {}
consul {
  retry_join = ["a\nb"]
}
