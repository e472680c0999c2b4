service "shop" {
  meta = { a = env.NOPE, b = upper(app.guid) }
}
