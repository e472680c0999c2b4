package main

import (
	"errors"
	"fmt"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// acl shows the policies of the tokens that a bound service gives, and that of
// the servers.
func (c *command) acl() func(string) error {
	dir := c.flags.String("out", "", "folder to write to")
	servers := c.flags.String("servers", "server-", "what the servers' node names start with")
	return func(file string) error {
		mesh, err := c.load(file)
		if err != nil {
			return err
		}
		app := c.context.App["name"]
		if app == "" {
			return errors.New("the names of an app's nodes start with its own\nhint: -app NAME says what it is pushed as")
		}
		if droplet.NodeName(app, "") == "" {
			return fmt.Errorf("of the app's name %q nothing is left that a node's name may have, so its policy would be for every node there is\nhint: push it under a name with letters from a to z, or digits", app)
		}
		if *servers == "" {
			return errors.New("an empty prefix is every node there is\nhint: -servers says what the servers' node names start with")
		}
		var files []render.File
		for _, policy := range []render.Policy{
			render.AgentPolicy(app), render.ServicePolicy(mesh, app), render.ServerPolicy(*servers),
		} {
			files = append(files, render.File{Path: policy.Name + ".hcl", Content: []byte(policy.Text())})
		}
		return c.write(*dir, files)
	}
}

// intentions shows the configuration entries with which the upstreams of some
// files let their callers through.
func (c *command) intentions() func(string) error {
	dir := c.flags.String("out", "", "folder to write to")
	return func(string) error {
		names := c.files
		if len(names) == 0 {
			names = []string{""}
		}
		var meshes []*meshfile.Mesh
		for _, name := range names {
			mesh, err := c.load(name)
			if err != nil {
				return err
			}
			meshes = append(meshes, mesh)
		}
		var files []render.File
		for _, intention := range render.Intentions(meshes...) {
			files = append(files, render.File{Path: "intentions-" + intention.Destination + ".hcl", Content: []byte(intention.Text())})
		}
		return c.write(*dir, files)
	}
}
