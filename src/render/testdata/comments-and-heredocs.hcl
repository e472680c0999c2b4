# What the shop offers.
service "shop" { // in the process web
  /* and a check */
  check "health" {
    http  = "/health"
    notes = <<-EOT
      Two lines,
      "quoted" & <escaped>.
    EOT
  }
}
