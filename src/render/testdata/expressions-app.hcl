service "shop" {
  tags = [app.space, app.organization]
  meta = {
    app   = app.name
    guid  = app.id
    route = app.route
    short = substr(app.id, 0, 2)
  }
  upstream "billing" { service = "billing-${app.space}" }
}
