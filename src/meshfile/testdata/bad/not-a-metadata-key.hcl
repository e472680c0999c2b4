service "shop" {
  meta = { "team name" = "a", "owner!" = "b", "" = "c" }
}
consul {
  node_meta = { "a.b" = "c" }
}
