service "shop" {}
envoy {
  extra_args = ["--log-level", "debug", "--concurrency=4"]
}
