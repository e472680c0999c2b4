service "a" {
  name = "[2J]0;owned"
  prt = 1
}
