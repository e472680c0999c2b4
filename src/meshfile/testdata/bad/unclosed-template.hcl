service "shop" {
  tags = ["${env.COLOUR"]
}
