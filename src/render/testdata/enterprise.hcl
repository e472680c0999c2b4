service "ent" {
  upstream "n" {
    namespace = "ns"
    partition = "p"
  }
}
