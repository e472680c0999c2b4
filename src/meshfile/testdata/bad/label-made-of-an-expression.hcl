service app.name {}
