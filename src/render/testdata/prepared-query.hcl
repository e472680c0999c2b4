service "shop" {
  upstream "nearest-billing" {
    prepared_query = "billing-geo"
    datacenter     = "dc1"
  }
}
