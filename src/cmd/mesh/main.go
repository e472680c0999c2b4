// Command mesh is the container program: the two sidecars and the hold of the
// app. It is put into the droplet, so it links no staging code. It reads what staging
// left (package droplet) and knows neither mesh.hcl nor libbuildpack nor how anything
// was fetched.
//
//	mesh agent   lays what differs between instances over agent.json and runs
//	             the Consul agent, again and again where it ends
//	mesh proxy   waits for the agent and a leader, registers the services,
//	             boots an Envoy for each, lets the app start, says when it may
//	             get traffic, and takes all of it down again
//	mesh app     runs the app's start command when the proxy says so, and
//	             passes SIGTERM on when no caller sends requests any more
//	mesh status  asks the proxy how everything is
//
// Proxy, app and status meet at a Unix socket in the instance's run folder
// (src/mesh/gate). Every wait is for a condition, bounded, named and logged.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/agent"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/gate"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/proxy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

const usage = `usage: mesh agent                runs the Consul agent of this instance
       mesh proxy                runs the sidecar proxies of this instance
       mesh app -- COMMAND...    runs the app when its mesh is ready
       mesh status [-json]       says what works and what does not, and why;
                                 exit status 0 where everything does, 1 otherwise

Cloud Foundry starts the first two as sidecars from the droplet's launch.yml,
and the third in place of the app's start command. The fourth is for people:
cf ssh APP -c '/home/vcap/deps/*/bin/mesh status'
`

// gcPercent keeps the heap close to what is in use: it is a megabyte or two, and
// the app's memory pays for it.
const gcPercent = 20

// processors are enough for what is mostly waiting; Go keeps memory for each.
const processors = 1

func main() {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(processors)
	log := wait.NewLog(os.Stdout)
	status, err := run(os.Args[1:], log)
	if err != nil {
		text, hints, _ := strings.Cut(err.Error(), "\n")
		log("failed: %s", text)
		for hint := range strings.Lines(hints) {
			log("%s", strings.TrimSpace(hint))
		}
		status = 1
	}
	os.Exit(status)
}

func run(args []string, log wait.Log) (status int, err error) {
	if len(args) == 0 {
		return 0, fmt.Errorf("want one of agent, proxy, app, status\n%s", usage)
	}
	if args[0] == "--help" || args[0] == "-h" || args[0] == "help" {
		_, err := fmt.Print(usage)
		return 0, err
	}
	program, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("failed to find the droplet: %w", err)
	}
	inst, err := instance.New(program, os.Getenv)
	if err != nil {
		return 0, err
	}
	if args[0] != "status" {
		instance.AdoptChildren()
	}
	switch {
	case args[0] == "agent" || args[0] == "proxy":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if args[0] == "agent" {
			return 0, agent.Run(ctx, inst, log)
		}
		return 0, proxy.Run(ctx, inst, log)
	case args[0] == "status" && (len(args) == 1 || len(args) == 2 && strings.TrimLeft(args[1], "-") == "json"):
		return printStatus(inst, len(args) == 2)
	case args[0] == "app" && len(args) > 2 && args[1] == "--":
		environment, err := gate.AppEnvironment(syscall.Exec)
		if err != nil {
			return 0, err
		}
		return gate.App(context.Background(), inst, log, args[2:], environment, syscall.Exec)
	}
	return 0, fmt.Errorf("cannot run %q\n%s", strings.Join(args, " "), usage)
}

// printStatus prints how this instance is.
func printStatus(inst instance.Instance, asJSON bool) (int, error) {
	s, err := proxy.AskStatus(context.Background(), inst)
	if err != nil {
		return 0, err
	}
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(s)
	} else {
		err = s.Print(os.Stdout)
	}
	if err != nil || s.Healthy() {
		return 0, err
	}
	return 1, nil
}
