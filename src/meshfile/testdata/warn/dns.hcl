service "My_App" {}
