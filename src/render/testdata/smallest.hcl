service "my-app" {}
