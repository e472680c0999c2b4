service "shop" {
  process = trimprefix(env.COLOUR, "blue")
}
