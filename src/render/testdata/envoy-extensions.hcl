service "shop" {
  protocol = "http"

  sidecar {
    envoy_extension "builtin/lua" {
      arguments = {
        ProxyType = "connect-proxy"
        Listener  = "inbound"
        Script    = <<-LUA
          function envoy_on_response(response)
            response:headers():add("x-shop", "open")
          end
        LUA
      }
    }
    envoy_extension "builtin/property-override" {
      required       = true
      consul_version = ">= 1.22"
      envoy_version  = "~> 1.38.0"
      arguments = {
        ProxyType = "connect-proxy"
        Patches = [{
          ResourceFilter = { ResourceType = "listener", TrafficDirection = "inbound" }
          Op             = "add"
          Path           = "/stat_prefix"
          Value          = "shop"
        }]
      }
    }
  }
}
