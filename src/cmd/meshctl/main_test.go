package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/consul-mesh/mesh-buildpack/src/pairs"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"meshctl": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, "CONSUL="+pairs.Consul, "ENVOY="+pairs.Envoy)
			return nil
		},
	})
}

// TestMistakes runs meshctl validate over every bad file of package meshfile:
// the whole output is the one of staging, which stands beside the file.
func TestMistakes(t *testing.T) {
	t.Parallel()
	bad, err := filepath.Abs("../../meshfile/testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	messages, err := filepath.Glob(filepath.Join(bad, "*.txt"))
	if err != nil || len(messages) < 80 {
		t.Fatalf("found only %d bad files: %v", len(messages), err)
	}
	scripts := t.TempDir()
	var names []string
	for _, message := range messages {
		file := strings.TrimSuffix(filepath.Base(message), ".txt")
		name := "mesh.hcl"
		if strings.HasSuffix(file, ".json") {
			name += ".json"
		}
		script := filepath.Join(scripts, strings.ReplaceAll(file, ".", "-")+".txtar")
		want, err := os.ReadFile(message)
		if err != nil {
			t.Fatal(err)
		}
		// The environment is that of package meshfile's own test, nothing else.
		text := fmt.Sprintf(`cp $BAD/%s %s
! exec env -i VCAP_APPLICATION=$VCAP_APPLICATION COLOUR=blue API_TOKEN=x $MESHCTL validate
! stdout .
cmp stderr want
-- want --
meshctl: %s`, file, name, want)
		if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, script)
	}
	testscript.Run(t, testscript.Params{
		Files: names,
		Setup: func(env *testscript.Env) error {
			program, err := exec.LookPath("meshctl")
			env.Vars = append(env.Vars, "BAD="+bad, "MESHCTL="+program,
				`VCAP_APPLICATION={"application_id":"0f1e","application_name":"Shop","space_name":"dev","organization_name":"acme","application_uris":["shop.example.com"]}`)
			return err
		},
	})
}
