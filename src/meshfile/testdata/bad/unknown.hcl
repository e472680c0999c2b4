service "web" {
  prot = "http"
  upstraem "a" {}
}
consl {}
