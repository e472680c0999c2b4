package repository

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"
)

// cfCommand is a command of the cf CLI, version 8: how many arguments it has, and its
// flags, with a colon where one has a value.
type cfCommand struct {
	least, most int
	flags       string
}

// rolling are the flags of what deploys.
const rolling = " --strategy: --max-in-flight: --instance-steps: --no-wait"

// cfCommands are those that the documents may name (cloudfoundry/cli, command/v7).
var cfCommands = map[string]cfCommand{
	"add-network-policy":           {2, 2, "-s: -o: --protocol: --port:"},
	"app":                          {1, 1, "--guid"},
	"apps":                         {0, 0, "--labels: --no-stats"},
	"bind-running-security-group":  {1, 1, ""},
	"bind-security-group":          {2, 2, "--lifecycle: --space:"},
	"bind-service":                 {2, 2, "-c: --binding-name: --wait -w"},
	"bind-staging-security-group":  {1, 1, ""},
	"buildpacks":                   {0, 0, "--labels: --lifecycle: -l:"},
	"cancel-deployment":            {1, 1, ""},
	"create-app-manifest":          {1, 1, "-p:"},
	"create-buildpack":             {3, 3, "--disable --lifecycle: -l:"},
	"create-security-group":        {2, 2, ""},
	"create-user-provided-service": {1, 1, "-l: -p: -r: -t:"},
	"curl":                         {1, 1, "-H: -X: -d: -f --fail -i --output:"},
	"delete":                       {1, 1, "-f -r"},
	"download-droplet":             {1, 1, "--droplet: --path: -p:"},
	"logs":                         {1, 1, "--recent"},
	"map-route":                    {2, 2, "--hostname: -n: --path: --port: --app-protocol: --option: -o:"},
	"network-policies":             {0, 0, "--source:"},
	"org":                          {1, 1, "--guid"},
	"push": {0, 1, "-b: --buildpack: -c: --start-command: -f: --manifest: --no-manifest --no-start -i: --instances: -k: --disk: -l: --log-rate-limit: " +
		"-m: --memory: -p: --path: -s: --stack: -t: --app-start-timeout: -u: --health-check-type: --endpoint: --no-route --random-route " +
		"--var: --vars-file: --droplet: --task --lifecycle: --docker-image: -o: --docker-username:" + rolling},
	"remove-network-policy":                  {2, 2, "-s: -o: --protocol: --port:"},
	"rename":                                 {2, 2, ""},
	"restage":                                {1, 1, "--strategy: --max-in-flight: --no-wait"},
	"restart-app-instance":                   {2, 2, "--process:"},
	"restart":                                {1, 1, strings.TrimSpace(rolling)},
	"revisions":                              {1, 1, ""},
	"rollback":                               {1, 1, "--version: -f --strategy: --max-in-flight: --instance-steps:"},
	"run-task":                               {1, 2, "--command: -c: -k: -l: -m: --name: --process: --wait -w"},
	"running-environment-variable-group":     {0, 0, ""},
	"scale":                                  {1, 1, "-i: -k: -l: -m: -f --process:"},
	"set-env":                                {3, 3, ""},
	"set-staging-environment-variable-group": {1, 1, ""},
	"space":                                  {1, 1, "--guid --security-group-rules"},
	"ssh": {1, 1, "--app-instance-index: -i: --command: -c: --disable-pseudo-tty -T --force-pseudo-tty --request-pseudo-tty -t -L: " +
		"--process: --skip-host-validation -k --skip-remote-execution -N"},
	"staging-environment-variable-group": {0, 0, ""},
	"start":                              {1, 1, ""},
	"stop":                               {1, 1, ""},
	"target":                             {0, 0, "-o: -s:"},
	"unmap-route":                        {2, 2, "--hostname: -n: --path: --port:"},
	"update-buildpack": {1, 1, "--assign-stack: --disable --enable --lock --unlock --path: -p: --position: -i: --rename: --stack: -s: " +
		"--lifecycle: -l:"},
}

// TestCFCommands: every cf command that a document shows or names is one, with its
// flags.
func TestCFCommands(t *testing.T) {
	t.Parallel()
	found := 0
	for _, document := range documents(t) {
		text := read(t, document)
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
			for _, words := range cfCalls(t, document, block[1]) {
				found++
				if problem := cfProblem(words, true); problem != "" {
					t.Errorf("%s: cf %s: %s", document, strings.Join(words, " "), problem)
				}
			}
		}
		for _, named := range regexp.MustCompile("`(cf [^`]+)`").FindAllStringSubmatch(text, -1) {
			for _, words := range cfCalls(t, document, named[1]) {
				found++
				if problem := cfProblem(words, false); problem != "" {
					t.Errorf("%s: `%s`: %s", document, named[1], problem)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("the documents have only %d cf commands", found)
	}
}

// TestWrongCFCommands: what is wrong is seen.
func TestWrongCFCommands(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"cf pusch my-app":                      "there is no such command",
		"cf push my-app --no-start --buildpac": "it has no flag --buildpac",
		`echo "$(cf app x --gid)"`:             "it has no flag --gid",
		"cf bind-service my-app":               "it wants 2 arguments",
		"cf set-env a b c d":                   "it wants 3 arguments",
		"for a in b; do cf start; done":        "it wants 1 argument",
	} {
		calls := cfCalls(t, "a test", text)
		if len(calls) != 1 || cfProblem(calls[0], true) != want {
			t.Errorf("%s: %q", text, calls)
		}
	}
}

// cfCalls are the calls of cf in a shell's text, each without its first word.
func cfCalls(t *testing.T, where, text string) (calls [][]string) {
	t.Helper()
	program, err := syntax.NewParser().Parse(strings.NewReader(text), where)
	if err != nil {
		t.Errorf("%s has no shell commands: %v\n%s", where, err, text)
		return nil
	}
	syntax.Walk(program, func(node syntax.Node) bool {
		call, is := node.(*syntax.CallExpr)
		if !is || len(call.Args) < 2 || call.Args[0].Lit() != "cf" {
			return true
		}
		var words []string
		for _, word := range call.Args[1:] {
			words = append(words, text[word.Pos().Offset():word.End().Offset()])
		}
		calls = append(calls, words)
		return true
	})
	return calls
}

// cfProblem says what is wrong with a call of cf, empty where nothing is. One that is not
// whole is named in a sentence: it may lack arguments, and its last flag a value.
func cfProblem(words []string, whole bool) string {
	command, known := cfCommands[words[0]]
	if !known {
		return "there is no such command"
	}
	flags := strings.Fields(command.flags)
	has := func(flag string) bool { return slices.Contains(flags, flag) }
	args := 0
	for i := 1; i < len(words); i++ {
		name, _, assigned := strings.Cut(words[i], "=")
		switch {
		case !strings.HasPrefix(words[i], "-"):
			args++
		case has(name + ":"):
			if !assigned {
				i++
			}
		case !has(name):
			return "it has no flag " + name
		}
	}
	wants := command.most
	if args < command.least {
		wants = command.least
	}
	if args <= command.most && (args >= command.least || !whole) {
		return ""
	}
	if wants == 1 {
		return "it wants 1 argument"
	}
	return fmt.Sprintf("it wants %d arguments", wants)
}
