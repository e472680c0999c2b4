service "shop" {}
consul {
  config = { enable_local_script_checks = true }
}
