service "shop" {}
consul {
  mode = "agentless"
  addresses = [
    "consul.example.com:8443",
    "https://consul.example.com",
    "consul.example.com/v1",
    "provider=aws tag_key=consul tag_value=server",
    "[2001:db8::1]:8300",
    "[2001:db8::1]",
    "2001:db8::2",
    "consul server",
    "",
  ]
}
