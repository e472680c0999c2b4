service "shop" {
  task "report" {}
}
