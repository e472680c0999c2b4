service "shop" {
  id   = "shop-${env.CF_INSTANCE_INDEX}"
  port = env.PORT
}
