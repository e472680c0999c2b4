// Command meshctl is the app author's and the operator's tool: it checks, shows and
// formats a mesh.hcl with the code that staging uses, and clears the catalog.
package main

import (
	"errors"
	"fmt"
	"os"
)

const usage = `usage: meshctl COMMAND [FLAGS] [FILE]

  validate   say everything that is wrong with the file     [-json]
  render     show the files that staging would write        [-out DIR] [-index N]
  fmt        write the file in HCL's own format             [-check]
  init       write a starter with comments: init [app|task] [-force]
  import     show the mesh.hcl for a service definition of
             Consul's, and say what of that is not in it
  schema     describe the whole language as JSON
  acl        show the ACL policies that the file needs      [-out DIR] [-servers PREFIX]
  intentions show the intentions that upstreams need, of any
             number of files together; written, each
             replaces all others of its destination         [-out DIR]
  sweep      list the nodes that dead instances without agents
             have left in the catalog                       [-delete] [-wait TIME]

sweep reads CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and CONSUL_CACERT.
FILE is mesh.hcl, or mesh.hcl.json, in this folder unless it is named.
Expressions see the environment; what Cloud Foundry would say of the app is
given by -app NAME, -space NAME, -org NAME, -id GUID and -route HOST. With
-defaults FILE the operator's defaults count where the file says nothing.
Exit status: 0, or 1 with what is wrong on standard error.
`

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, errSaid) {
		fmt.Fprintf(os.Stderr, "meshctl: %v\n", err)
	}
	if err != nil {
		os.Exit(1)
	}
}
