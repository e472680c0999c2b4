task {
  upstream "stock" {}
}
