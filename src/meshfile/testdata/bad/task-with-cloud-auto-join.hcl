service "shop" {
  task {}
}

consul {
  retry_join = ["provider=aws tag_key=consul tag_value=server"]
}
