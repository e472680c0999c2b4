// Command package makes the zip that an operator hands to cf create-buildpack:
// what the manifest includes, the licences of all that is linked, and a bill
// of materials. libbuildpack's packager makes the zip; what differs from run
// to run is taken out of it afterwards.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".", "the repository")
	flag.StringVar(&o.stack, "stack", "cflinuxfs4", "the stack that the zip is for")
	flag.BoolVar(&o.cached, "cached", false, "put every download of the manifest into the zip")
	flag.StringVar(&o.manifest, "manifest", "manifest.yml", "the manifest")
	flag.StringVar(&o.defaults, "defaults", "", "a file with what counts where an app's mesh.hcl says nothing")
	flag.StringVar(&o.out, "out", "build", "the folder to write to")
	flag.Parse()
	name, err := o.run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "package: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(name)
}

type options struct {
	root, stack, manifest, defaults, out string
	cached                               bool
}
