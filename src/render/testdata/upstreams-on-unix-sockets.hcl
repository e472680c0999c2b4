service "shop" {
  upstream "postgres" { socket = "/home/vcap/tmp/.s.PGSQL.5432" }
  upstream "redis" {
    socket      = "/home/vcap/tmp/redis.sock"
    socket_mode = "0660"
  }
}
