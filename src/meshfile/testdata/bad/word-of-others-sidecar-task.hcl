service "shop" {
  sidecar_task {
    resources { memory = 64 }
  }
}
