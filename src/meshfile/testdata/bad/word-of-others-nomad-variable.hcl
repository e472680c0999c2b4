service "shop" {
  meta = { id = "${NOMAD_ALLOC_ID}" }
}
