service "shop" {}
consul {
  retry_join = []
}
