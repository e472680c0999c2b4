service "a" {
  prt = 1
}
