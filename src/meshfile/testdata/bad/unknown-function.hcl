service "shop" {
  tags = [uper(env.COLOUR)]
  meta = { home = file("/etc/passwd") }
}
