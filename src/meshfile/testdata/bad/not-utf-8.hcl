service "café" {}
