package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const canary = "c4n4ry-0f-4-s3cr3t"

// testCA is a certificate as PEM, of a CA or not.
func testCA(t *testing.T, isCA bool) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: isCA, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// services is VCAP_SERVICES with one user-provided service.
func services(t *testing.T, credentials string) func(string) string {
	t.Helper()
	return environment(map[string]string{envServices: fmt.Sprintf(
		`{"user-provided":[{"name":"mesh","label":"user-provided","tags":["Consul"],"credentials":%s}]}`, credentials)})
}

// folder is a folder with files of these names.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func environment(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func TestWholeBinding(t *testing.T) {
	t.Parallel()
	ca := testCA(t, true)
	text, err := json.Marshal(map[string]any{
		"datacenter": "cf", "retry_join": []string{"a.example", "b.example"}, "ca": "rubbish\n" + ca + "more\n" + ca,
		"gossip_key": "aPuGh+5UDskRAbkLaXRzFoSOcSM+5vAK+NEYOWHJH7w=", "agent_token": "a", "service_token": "s",
		"auto_encrypt": true, "namespace": "ns", "partition": "part", "default_policy": "allow", "plan_url": canary,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, unknown, err := Read(services(t, string(text)), "")
	if err != nil {
		t.Fatal(err)
	}
	want := &Credentials{
		Binding: "mesh", Datacenter: "cf", RetryJoin: []string{"a.example", "b.example"}, Partition: "part", Namespace: "ns",
		CA: ca + ca, VerifyServerName: true, AutoEncrypt: true, GossipKey: "aPuGh+5UDskRAbkLaXRzFoSOcSM+5vAK+NEYOWHJH7w=",
		AgentToken: "a", ServiceToken: "s", DefaultPolicy: "allow",
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{`"plan_url"`}, unknown); diff != "" {
		t.Errorf("unknown keys (-want +got):\n%s", diff)
	}
	if printed := fmt.Sprintf("%v %+v %#v %s", c, c, c, c.AgentToken); strings.Contains(printed, "aPuGh") {
		t.Errorf("printed: %s", printed)
	}
}

// TestWaysToBind: the same binding through each way that the platform has.
func TestWaysToBind(t *testing.T) {
	t.Parallel()
	const vcap = `{"consul":[{"name":"b","instance_name":"i","label":"consul","tags":[],"credentials":{"token":"t","retry_join":["x","y"],"auto_encrypt":false}}]}`
	dir := folder(t, map[string]string{
		"vcap_services":   vcap,
		"root/b/type":     "consul",
		"root/b/provider": "consul", "root/b/binding-guid": "1", "root/b/instance-name": "i", "root/b/name": "b",
		"root/b/tags": "[]", "root/b/token": "t\n", "root/b/retry-join": `["x","y"]`, "root/b/auto_encrypt": "false",
		"root/b/..data/token": "other", "root/other/type": "mysql", "root/.hidden/type": "consul",
		"2025/b/type": "consul", "2025/b/provider": "consul", "2025/b/label": "consul", "2025/b/name": "b", "2025/b/plan": "small",
		"2025/b/binding_guid": "1", "2025/b/binding_name": "b", "2025/b/instance_guid": "2", "2025/b/instance_name": "i",
		"2025/b/syslog_drain_url": "x", "2025/b/volume_mounts": "[{}]", "2025/b/token": "t", "2025/b/retry_join": `["x","y"]`,
		"words/b/type": "consul", "words/b/token": "t", "words/b/retry_join": "x, y",
	})
	want := &Credentials{Binding: "b", RetryJoin: []string{"x", "y"}, AgentToken: "t", ServiceToken: "t", VerifyServerName: true, DefaultPolicy: "deny"}
	for way, env := range map[string]map[string]string{
		"environment":       {envServices: vcap},
		"file":              {envFile: filepath.Join(dir, "vcap_services")},
		"file, empty first": {envServices: "{}", envFile: filepath.Join(dir, "vcap_services")},
		"root":              {envRoot: filepath.Join(dir, "root")},
		"root, with words":  {envRoot: filepath.Join(dir, "words")},
		"root, since 2025":  {envRoot: filepath.Join(dir, "2025")},
	} {
		for _, name := range []string{"", "b", "i"} {
			if name == "i" && way == "root, with words" {
				continue // these files do not name the instance
			}
			c, unknown, err := Read(environment(env), name)
			if err != nil || len(unknown) > 0 {
				t.Fatalf("%s: %v %v", way, unknown, err)
			}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Errorf("%s (-want +got):\n%s", way, diff)
			}
		}
	}
	for way, env := range map[string]map[string]string{
		"nothing": {}, "no services": {envServices: "{}"}, "no folder": {envRoot: filepath.Join(dir, "nowhere")},
		"another": {envServices: `{"mysql":[{"name":"db","credentials":{"password":"x"}},null]}`},
	} {
		if c, _, err := Read(environment(env), ""); c != nil || err != nil {
			t.Errorf("%s: %v %v", way, c, err)
		}
	}
}

func TestWhichBinding(t *testing.T) {
	t.Parallel()
	const vcap = `{
		"consul": [{"name": "labelled", "label": "consul", "credentials": {"token": "l"}}],
		"user-provided": [
			{"name": "tagged", "tags": ["consul"], "credentials": {"token": "t"}},
			{"name": "named", "instance_name": "inst", "credentials": {"token": "n"}}
		]}`
	two := strings.Replace(vcap, `"instance_name"`, `"tags": ["consul"], "instance_name"`, 1)
	for name, test := range map[string]struct{ vcap, binding, token, wrong string }{
		"by name":          {vcap, "named", "n", ""},
		"by instance":      {vcap, "inst", "n", ""},
		"tag before label": {vcap, "", "t", ""},
		"by label":         {strings.Replace(vcap, `"tags": ["consul"]`, `"tags": ["x"]`, 1), "", "l", ""},
		"not bound":        {vcap, "other", "", `mesh.hcl names the service binding "other", and bound are "labelled", "named", "tagged"`},
		"nothing bound":    {"{}", "other", "", `mesh.hcl names the service binding "other", and no service is bound`},
		"several":          {two, "", "", `several bound services have the tag consul: "named", "tagged"` + "\nhint: say which"},
		"one of several":   {two, "named", "n", ""},
	} {
		c, _, err := Read(environment(map[string]string{envServices: test.vcap}), test.binding)
		switch {
		case test.wrong != "" && (err == nil || !strings.HasPrefix(err.Error(), test.wrong)):
			t.Errorf("%s: %v", name, err)
		case test.wrong == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.wrong == "" && string(c.ServiceToken) != test.token:
			t.Errorf("%s: the token of %s", name, c.Binding)
		}
	}
}

// TestMistakes: every mistake is named with its key, and no value is shown.
func TestMistakes(t *testing.T) {
	t.Parallel()
	quote := func(text string) string {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(quoted)
	}
	megabyte := quote(strings.Repeat(canary, 60000))
	for text, want := range map[string]string{
		`{}`:                                             `cannot be used: it has none of: addresses, agent_token`,
		`{"password":"` + canary + `"}`:                  `it has none of: `,
		`{"token":7}`:                                    `token: is no string`,
		`{"token":` + megabyte + `}`:                     `token: has 1080000 bytes, and at most 4096 make sense`,
		`{"token":"` + canary + `\nx: y"}`:               `token: has a line break or another control character in it`,
		`{"token":"` + canary + `\u0000"}`:               `token: has a line break`,
		`{"token":"` + canary + ` x"}`:                   `token: has a character that no token has`,
		`{"token":"` + canary + `\"}}"}`:                 `token: has a character that no token has`,
		`{"token":"` + canary + `é"}`:                    `token: has a character that no token has`,
		`{"token":"` + canary + `","service_token":"x"}`: `token: is for agent and services`,
		`{"agent_token":"` + canary + `"}`:               `service_token: is missing, with an agent_token`,
		`{"service_token":"` + canary + `"}`:             `agent_token: is missing, with a service_token`,
		`{"auth_method":"m"}`:                            `jwt: is missing, with an auth_method`,
		`{"jwt":"` + canary + `"}`:                       `auth_method: is missing, with a jwt`,
		`{"jwt":"` + canary + `","auth_method":"m","service_token":"x"}`: `service_token: comes from the login`,
		`{"gossip_key":"` + canary + `"}`:                                `gossip_key: is not the base64 text of 16, 24 or 32 bytes`,
		`{"auto_encrypt":true,"auth_method":"m","jwt":"` + canary + `"}`: `agent_token: is missing: auto_encrypt needs it`,
		`{"auto_encrypt":true}`:                                          `ca: is missing, and auto_encrypt needs it`,
		`{"auto_encrypt":"` + canary + `"}`:                              `auto_encrypt: is neither true nor false`,
		`{"verify_server_hostname":3}`:                                   `verify_server_hostname: is neither true nor false`,
		`{"default_policy":"` + canary + `"}`:                            `default_policy: is neither "allow" nor "deny"`,
		`{"datacenter":"` + canary + `\" }"}`:                            `datacenter: has a character`,
		`{"retry_join":{}}`:                                              `retry_join: is no list of addresses`,
		`{"retry_join":[7]}`:                                             `retry_join: has an item that is no address`,
		`{"retry_join":["` + canary + `\n"]}`:                            `retry_join: has an item that is no address`,
		`{"retry_join":["x"],"addresses":["y"]}`:                         `addresses: is another name of retry_join`,
		`{"ca":"` + canary + `"}`:                                        `ca: has no PEM certificate in it`,
		`{"ca":` + megabyte + `}`:                                        `ca: has 1080000 bytes`,
		`{"ca":[]}`:                                                      `ca: is no string`,
		`{"ca":"-----BEGIN CERTIFICATE-----\nYzRuNHJ5\n-----END CERTIFICATE-----\n"}`: `ca: has a certificate that cannot be read`,
		`{"ca":"-----BEGIN PRIVATE KEY-----\nYzRuNHJ5\n-----END PRIVATE KEY-----\n"}`: `ca: has a private key in it`,
		`{"ca":` + quote(testCA(t, false)) + `}`:                                      `ca: has a certificate that is not one of a CA`,
		`{"credhub-ref":"/` + canary + `"}`:                                           `the platform has not resolved the CredHub reference of the bound service "mesh"`,
		`{"token":7,"gossip_key":"x"}`:                                                `; `,
		`{"token":"x","` + strings.Repeat("k", 5000) + `\n":1,"ca":1}`:                `ca: is no string`,
	} {
		_, _, err := Read(services(t, text), "")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("%.80s: want %q, got %v", text, want, err)
			continue
		}
		if strings.Contains(err.Error(), canary) || strings.Count(err.Error(), "\n") != 1 || len(err.Error()) > 1000 {
			t.Errorf("%.80s: the message is %.2000s", text, err)
		}
	}
	for _, text := range []string{`{"` + canary, `{"a":"` + canary + `"}`, `[]`, `{"a":[{"tags":"` + canary + `"}]}`} {
		_, _, err := Read(environment(map[string]string{envServices: text}), "")
		if err == nil || !strings.Contains(err.Error(), envServices) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestReferenceInFiles: Cloud Foundry resolves no CredHub reference in a file, and
// which app feature is to be turned off depends on the file.
func TestReferenceInFiles(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"vcap_services":      `{"consul":[{"name":"b","credentials":{"credhub-ref":"/` + canary + `"}}]}`,
		"root/b/type":        "consul",
		"root/b/credhub-ref": "/" + canary,
	})
	for feature, env := range map[string]map[string]string{
		"file-based-vcap-services": {envFile: filepath.Join(dir, "vcap_services")},
		"service-binding-k8s":      {envRoot: filepath.Join(dir, "root")},
	} {
		_, _, err := Read(environment(env), "")
		if err == nil || !strings.Contains(err.Error(), "turn the app feature "+feature+" off") || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", feature, err)
		}
	}
}

// TestClearText: tokens without a CA are said, unless the binding says that it may be.
func TestClearText(t *testing.T) {
	t.Parallel()
	ca, err := json.Marshal(testCA(t, true))
	if err != nil {
		t.Fatal(err)
	}
	for binding, want := range map[string]bool{
		`{"token": "t"}`:                            true,
		`{"token": "t", "plaintext": false}`:        true,
		`{"auth_method": "m", "jwt": "j"}`:          true,
		`{"token": "t", "plaintext": true}`:         false,
		`{"token": "t", "plaintext": "true"}`:       false,
		`{"retry_join": ["a.example"]}`:             false,
		fmt.Sprintf(`{"token": "t", "ca": %s}`, ca): false,
	} {
		c, unknown, err := Read(services(t, binding), "")
		if err != nil || len(unknown) > 0 || c.InClearText() != want {
			t.Errorf("%s: %v, unknown %v: in clear text: %t", binding, err, unknown, c.InClearText())
		}
	}
}

// TestSystemCA: the binding may name the authorities that the platform trusts.
func TestSystemCA(t *testing.T) {
	t.Parallel()
	one, two := testCA(t, true), testCA(t, true)
	full := folder(t, map[string]string{"a.crt": one, "b.crt": testCA(t, false), "c.crt": "no PEM", "d.pem": two, "below/e.crt": one})
	for name, test := range map[string]struct{ dir, binding, want, wrong string }{
		"all":          {full, `{"ca":"system"}`, one + two, ""},
		"with a name":  {full, `{"ca":"system","verify_server_hostname":true}`, one + two, ""},
		"any name":     {full, `{"ca":"system","verify_server_hostname":false}`, "", "verify_server_hostname: has to be true"},
		"empty":        {t.TempDir(), `{"ca":"system"}`, "", "CF_SYSTEM_CERT_PATH has none"},
		"no folder":    {"", `{"ca":"system"}`, "", "failed to read CF_SYSTEM_CERT_PATH"},
		"its own only": {full, `{"ca":` + fmt.Sprintf("%q", one) + `}`, one, ""},
	} {
		getenv := services(t, test.binding)
		c, _, err := Read(func(name string) string {
			if name == envSystem {
				return test.dir
			}
			return getenv(name)
		}, "")
		switch {
		case test.wrong != "":
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case c.CA != test.want:
			t.Errorf("%s: the CA is\n%s", name, c.CA)
		}
	}
}
