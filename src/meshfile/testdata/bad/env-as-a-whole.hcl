service "shop" {
  meta = env
}
