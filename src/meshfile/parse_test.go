package meshfile

import (
	"encoding"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// staged is what expressions in the tests look at.
var staged = NewContext([]string{
	`VCAP_APPLICATION={"application_id":"0f1e","application_name":"Shop","space_name":"dev","organization_name":"acme","application_uris":["shop.example.com"]}`,
	"COLOUR=blue", "VCAP_SERVICES={}", "API_TOKEN=x", "CF_INSTANCE_INDEX=0",
})

func parse(t *testing.T, text string) *Mesh {
	t.Helper()
	mesh, warnings, err := Parse(Name, []byte(text), staged)
	if err != nil {
		t.Fatal(err)
	}
	if warnings != nil {
		t.Fatal(warnings)
	}
	return mesh
}

func TestDefaultsOfTheSmallestFile(t *testing.T) {
	t.Parallel()
	mesh := parse(t, `service "web" {}`)
	s := mesh.Services[0]
	for _, pair := range []struct {
		what      string
		got, want any
	}{
		{"process", s.Process, "web"},
		{"protocol", s.Protocol, "tcp"},
		{"id", s.ID, "web"},
		{"follows PORT", s.FollowsPort(), true},
		{"sidecar port", s.Sidecar.Port, 21000},
		{"admin port", mesh.AdminPort(0), 19000},
		{"retry_join", mesh.Consul.RetryJoin, []string{"consul-server.apps.internal"}},
		{"datacenter", mesh.Consul.Datacenter, "dc1"},
		{"agent's HTTP port", mesh.Consul.Ports.HTTP, 8500},
		{"memory", mesh.Consul.Memory + mesh.Envoy.Memory, 128},
		{"app", mesh.App, map[string]string(nil)},
	} {
		if diff := cmp.Diff(pair.want, pair.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", pair.what, diff)
		}
	}
}

// TestZeroIsNotTheDefault: an attribute that is given keeps its value.
func TestZeroIsNotTheDefault(t *testing.T) {
	t.Parallel()
	mesh := parse(t, "service \"a\" {\n upstream \"b\" {\n passive_health_check {\n max_failures = 0\n }\n }\n sidecar {\n access_logs {\n enabled = false\n }\n }\n}")
	if got := mesh.Services[0].Upstreams[0].PassiveHealthCheck.MaxFailures; got != 0 {
		t.Errorf("max_failures = %d", got)
	}
	if mesh.Services[0].Sidecar.AccessLogs.Enabled {
		t.Error("access logs are enabled")
	}
}

func TestAssignedPorts(t *testing.T) {
	t.Parallel()
	last := func(text string) int {
		t.Helper()
		services := parse(t, text).Services
		upstreams := services[len(services)-1].Upstreams
		return upstreams[len(upstreams)-1].Port
	}
	alone := last("service \"a\" {\n upstream \"x\" {}\n}")
	if below := last("service \"a\" {\n upstream \"new\" {}\n upstream \"x\" {}\n}"); below != alone {
		t.Errorf("upstream x moved from port %d to %d when another was added above it", alone, below)
	}
	two := parse(t, "service \"a\" {\n upstream \"x\" {}\n}\nservice \"b\" {\n process = \"worker\"\n upstream \"x\" {}\n}")
	if a, b := two.Services[0].Upstreams[0].Port, two.Services[1].Upstreams[0].Port; a != b {
		t.Errorf("two processes find x on ports %d and %d, but it has one variable", a, b)
	}
	if alone < UpstreamPorts || alone >= UpstreamPorts+upstreamPortsCount {
		t.Errorf("port %d is outside the range for upstreams", alone)
	}
}

func TestJSONSyntaxSaysTheSame(t *testing.T) {
	t.Parallel()
	const text = `{"service": {"a": {"protocol": "http", "port": 9000, "check": {"c": {"http": "/h"}}, "upstream": {"b": {"port": 9001}}}},
		"consul": {"datacenter": "${lower(\"CF\")}"}}`
	fromJSON, _, err := Parse(JSONName, []byte(text), staged)
	if err != nil {
		t.Fatal(err)
	}
	fromHCL := parse(t, `
service "a" {
  protocol = "http"
  port     = 9000
  check "c" { http = "/h" }
  upstream "b" { port = 9001 }
}
consul { datacenter = lower("CF") }
`)
	if diff := cmp.Diff(fromHCL, fromJSON, withoutPlaces()...); diff != "" {
		t.Errorf("mesh (-HCL +JSON):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	load := func(files ...string) error {
		dir := t.TempDir()
		for _, name := range files {
			if strings.HasSuffix(name, "/") {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"service": {"a": {}}}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := Load(dir, staged)
		return err
	}
	if err := load(JSONName); err != nil {
		t.Error(err)
	}
	for says, files := range map[string][]string{
		`service "my-app" {}`:                         nil,
		"failed to read mesh.hcl: is a directory":     {"mesh.hcl/"},
		"the app has both mesh.hcl and mesh.hcl.json": {Name, JSONName},
	} {
		if err := load(files...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error with %q: %v, want %q", files, err, says)
		}
	}
}

// TestMistakes parses every testdata/bad/* and compares the whole message with
// the .txt beside it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	goldenMessages(t, "testdata/bad", func(warnings *Diagnostics, err error) error { return err })
}

// TestWarnings does so for files that are good, but not without a remark.
func TestWarnings(t *testing.T) {
	t.Parallel()
	goldenMessages(t, "testdata/warn", func(warnings *Diagnostics, err error) error {
		if err != nil || warnings == nil {
			return nil
		}
		return warnings
	})
}

func goldenMessages(t *testing.T, dir string, message func(*Diagnostics, error) error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.hcl*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, ".txt") })
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := Name
			if strings.HasSuffix(file, ".json") {
				name = JSONName
			}
			_, warnings, err := Parse(name, src, staged)
			got := message(warnings, err)
			if got == nil {
				t.Fatalf("nothing is said; warnings %v, error %v", warnings, err)
			}
			golden := file + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.Error()+"\n"); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			for line := range strings.SplitSeq(got.Error(), "\n\n") {
				if strings.HasPrefix(line, "Error: ") && !strings.Contains(got.Error(), "on "+name+" line") {
					t.Errorf("an error without a line:\n%s", got)
				}
			}
		})
	}
}

// TestTags: every tag of the schema is one that the code knows.
func TestTags(t *testing.T) {
	t.Parallel()
	var walk func(reflect.Type)
	walk = func(block reflect.Type) {
		for i := range block.NumField() {
			field := block.Field(i)
			name, kind, _ := strings.Cut(field.Tag.Get("hcl"), ",")
			where := block.Name() + "." + field.Name
			if is := field.Tag.Get("is"); is != "" && is != "meta" && kinds[is] == nil {
				t.Errorf("%s: unknown kind %q", where, is)
			}
			if to, parsed := reflect.New(field.Type).Interface().(encoding.TextUnmarshaler); parsed {
				const wrong = "neither"
				if err := to.UnmarshalText([]byte(wrong)); err == nil {
					t.Errorf("%s: %q is good", where, wrong)
				}
				if judge := kinds[field.Tag.Get("is")]; judge == nil {
					t.Errorf("%s: nothing judges its text", where)
				} else if summary, _ := judge(wrong); summary == "" {
					t.Errorf("%s: %q is not refused", where, wrong)
				}
			}
			if name == "" || strings.HasSuffix(kind, "_range") || kind == "label" {
				continue
			}
			if field.Tag.Get("doc") == "" {
				t.Errorf("%s: no doc", where)
			}
			switch text := field.Tag.Get("default"); {
			case text == "":
			case field.Type.Kind() == reflect.Int:
				if _, err := strconv.Atoi(text); err != nil {
					t.Errorf("%s: default %q is no number", where, text)
				}
			case field.Tag.Get("is") != "" && kinds[field.Tag.Get("is")] != nil:
				if summary, _ := kinds[field.Tag.Get("is")](text); summary != "" {
					t.Errorf("%s: default %q: %s", where, text, summary)
				}
			}
			if kind == "block" {
				walk(blockType(field.Type))
			}
		}
	}
	walk(reflect.TypeFor[Mesh]())
}

// TestRefusedValuesAreNotShown: HCL says what variables are beside a mistake,
// and this language what is wrong with a value.
func TestRefusedValuesAreNotShown(t *testing.T) {
	t.Parallel()
	context := Context{Env: map[string]string{"API_TOKEN": "can!ary"}, App: map[string]string{"name": "shop"}}
	for _, value := range []string{
		`regex("^[a-z]+$", env.API_TOKEN)`,
		"<<-EOT\n  ${env.API_TOKEN}\nEOT\n",
		"join(\"-\", [\n  app.name,\n  env.API_TOKEN,\n])",
		`substr(env["API_TOKEN"], 0, 4)`,
	} {
		_, _, err := Parse("mesh.hcl", []byte("service \"shop\" {\n  id = "+value+"\n}\n"), context)
		if err == nil || !strings.Contains(err.Error(), "API_TOKEN cannot be used") {
			t.Errorf("%s: %v", value, err)
		} else if strings.Contains(err.Error(), "can!") {
			t.Errorf("the value is shown: %v", err)
		}
	}
}

// TestCredentialsAreNotShown: none belongs into the file, and none of one that
// is there gets into a log.
func TestCredentialsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"consul {\n  token = \"can!ary\"\n}",
		"consul {\n  token \"can!ary\"\n}",
		"consul {\n  token = 'can!ary'\n}",
		"consul {\n  token = canary\n}",
		"consul {\n  token: \"can!ary\"\n}",
		"consul {\n  token = app.space == \"prod\" ? \"can!ary\" : \"none\"\n}",
		"consul {\n  token = app.space == \"prod\" ? (app.name == \"a\" ? \"can!ary\" : \"none\") : \"can!ary\"\n}",
		"consul {\n  token = \"can!ary\n}",
		"consul {\n  gossip_key = <<-EOT\n    can!ary\n  EOT\n}",
		"consul {\n  config = {\n    acl = { tokens = {\n      agent = \"can!ary\"\n    } }\n    encrypt = \"can!ary\" # was can!ary\n    server = true\n  }\n}",
		"consul {\n  config = {\n    # token = \"can!ary\"\n    server = true\n  }\n}",
		"consul {\n  config = jsonencode({ Password = \"can!ary\" })\n}",
		"consul {\n  config = \"{\\\"token\\\": \\\"can!ary\\\"}\"\n}",
		"consul { acl { tokens { agent = \"can!ary\" } } }",
		"service \"web\" {\n  check \"c\" {\n    tcp = true\n    headers = { Authorization = [\"Bearer can!ary\"] }\n  }\n}",
		"service \"web\" {\n  check \"c\" {\n    http = \"/\"\n    headers = { X-Anything = \"can!ary\" }\n  }\n}",
		"service \"web\" {\n  check \"c\" {\n    http = \"/\"\n    headers = { X-Anything = [canary] }\n  }\n}",
		"service \"web\" {\n  check \"c\" {\n    http = \"/\"\n    headers = { X-Anything = [regex(\"x\", env.PLAIN)] }\n  }\n}",
		"service \"web\" {\n  meta = {\n    a = \"b\"\n    jwt = \"can!ary\"\n    \"consul-x\" = \"y\"\n  }\n}",
		"service \"web\" {\n  meta = { db_password = \"" + strings.Repeat("can!ary", 80) + "\" }\n}",
		"envoy {\n  extra_args = [\"-c\", \"--token=can!ary\"]\n}",
		`{"service": {"web": {}}, "consul": {"token": "can!ary", "config": {"server": true, "encrypt": "can!ary"}}}`,
		"{\"service\": {\"web\": {}}, \"consul\": {\"token\":\n\"can!ary\", \"config\": {\"server\": true, \"acl\": {\n\"tokens\": [\"can!ary\"]}}}}",
	} {
		name := Name
		if strings.HasPrefix(text, "{") {
			name = JSONName
		}
		_, _, err := Parse(name, []byte(text), Context{Env: map[string]string{"PLAIN": "can!ary"}})
		if err == nil {
			t.Errorf("nothing is wrong with\n%s", text)
		} else if shown := err.Error(); strings.Contains(shown, "can!") || strings.Contains(shown, "canary") {
			t.Errorf("what is said of\n%s\nshows it:\n%s", text, shown)
		}
	}
}
