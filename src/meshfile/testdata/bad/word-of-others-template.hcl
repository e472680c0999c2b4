service "shop" {}
template {
  data = "x"
}
