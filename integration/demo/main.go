// Command demo runs HotROD through the mesh on a local Cloud Foundry cell: the
// system of the project's README, from one command, with what it really saw.
package main

import (
	"flag"
	"fmt"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

var (
	keep      = flag.Bool("keep", false, "leave the system running and print its URLs")
	secure    = flag.Bool("secure", false, "with ACLs, intentions default deny, gossip encryption and TLS")
	agentless = flag.Bool("agentless", false, "without Consul agents in the apps")
	verbose   = flag.Bool("v", false, "print the log of every app")
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: demo [-keep] [-secure] [-agentless] [-v]\n\nRuns HotROD through the mesh on a local Cloud Foundry cell.")
		flag.PrintDefaults()
	}
	flag.Parse()
	cell.MainWith(cell.MainOptions{
		Prepare: foundation.Prepare,
		Run:     run,
		Listen:  []string{"127.0.0.1:0"},
	})
}
