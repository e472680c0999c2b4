service "shop" {
  meta = { guid = app.guid, whole = jsonencode(app) }
}
