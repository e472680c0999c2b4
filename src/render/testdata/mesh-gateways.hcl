service "shop" {
  sidecar { mesh_gateway = "local" }
  upstream "billing" { datacenter = "eu-west" }
  upstream "search" {
    datacenter   = "us_east"
    mesh_gateway = "none"
  }
}
