service "shop" {}
consul {
  memory = "64M"
}
