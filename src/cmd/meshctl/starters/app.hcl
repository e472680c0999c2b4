# The app's place in the mesh. The whole language: docs/mesh-hcl.md.

# The name that others call. app.name is the name it is pushed with.
service "my-app" {
  # What the app speaks: tcp (the default), http, http2 or grpc.
  protocol = "http"

  # Traffic comes while this passes. Without a check, when the app listens.
  check "health" {
    http = "/health"
  }

  # What it calls. The address is in MESH_UPSTREAM_OTHER_APP_ADDR.
  upstream "other-app" {}
}

consul {
  # Without an agent: policies to the servers and to what it calls, and no others.
  # docs/modes.md has which mode for whom.
  mode = "agentless"

  # Where the Consul servers are.
  addresses = ["consul-server.apps.internal"]
}
