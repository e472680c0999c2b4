service "shop" {
  check "up" {
    docker_container_id = "x"
  }
}
