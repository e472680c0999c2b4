service "shop" {
  protocol = env.COLOUR == "blue" ? "http" : "tcp"
  port     = 9000 + length(keys({ a = 1 }))
  tags     = [for t in ["a", "b"] : "${t}-${env["COLOUR"]}"]
  upstream "billing" {
    datacenter = app.space == "dev" ? "dev" : "prod"
    port       = 9002
  }
}
