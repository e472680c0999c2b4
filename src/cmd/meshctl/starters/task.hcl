# Tasks of the app, in the mesh while they run. The whole language: docs/mesh-hcl.md.

# The name is what intentions say, with -task behind it: report-task.
task "report" {
  # What it calls. The address is in MESH_UPSTREAM_OTHER_APP_ADDR.
  upstream "other-app" {}
}

consul {
  # Without an agent, as all tasks are.
  mode = "agentless"

  # Where the Consul servers are.
  addresses = ["consul-server.apps.internal"]
}
