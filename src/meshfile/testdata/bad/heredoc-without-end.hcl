service "shop" {
  sidecar {
    access_logs {
      text_format = <<EOT
        %PROTOCOL%
    }
  }
}
