service "${app.name}" {}
