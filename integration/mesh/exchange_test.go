package mesh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
	"github.com/consul-mesh/mesh-buildpack/integration/load"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// wait is for what must not happen.
func wait(t *testing.T, seconds int) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(time.Duration(seconds) * time.Second):
	}
}

// policyInForce says that a service's Envoy hears of a change of intentions, which
// it does only with a good token, from what an app gets that calls it.
func (c *closedMesh) policyInForce(t *testing.T, caller *cell.RunningApp, service string) {
	t.Helper()
	for _, action := range []string{"allow", "deny", "allow"} {
		if err := c.Intention(t.Context(), caller.App().Name, service, action); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the intention says "+action, func(ctx context.Context) error {
			_, err := foundation.From(ctx, caller.Instance(0), backURL)
			var status *foundation.StatusError
			if action == "allow" && err != nil || action == "deny" && (!errors.As(err, &status) || status.Status != 403) {
				return fmt.Errorf("the call gives %v", err)
			}
			return nil
		})
	}
}

// exchanged: new tokens in the file that the platform gives are taken over by a
// running instance, and the old ones are then of no use.
func (c *closedMesh) exchanged(t *testing.T, w closedMode) {
	name := "exchanged-" + w.name
	back, binding := w.app(t, name, `protocol = "http"`, `check "health" { http = "/health" }`)
	const file = "/home/vcap/app/bound.json"
	text := back.VcapServices
	back.VcapServices, back.Env = "-", map[string]string{"VCAP_SERVICES_FILE_PATH": file}
	// The platform's own files are not in the app's source. This one stands for them.
	if err := os.WriteFile(filepath.Join(back.Dir, "bound.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	backend := w.start(t, back)
	front, _ := w.app(t, name+"-caller", fmt.Sprintf("upstream %q { port = %d }", name, frontPort))
	caller := w.start(t, front, name)
	c.policyInForce(t, caller, name)

	next, err := c.Binding(t.Context(), back.Name, back.Dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := foundation.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	next["ca"] = c.Secure.CA.PEM + other.PEM // both, as while one takes over
	c.bind(&back, next)
	put := func(text string) {
		t.Helper()
		output, status, err := backend.Instance(0).SSH(deadline(t), "cat > "+file+" <<'EOF'\n"+text+"EOF\n")
		if err != nil || status.Code != 0 {
			t.Fatalf("%v %v: %s", status, err, output)
		}
	}
	// A token that nobody knows changes nothing, also when its ready check would
	// have expired.
	put(strings.ReplaceAll(back.VcapServices, next["service_token"].(string), "00000000-0000-4000-8000-000000000000"))
	waitLog(t, backend, "the servers do not know the service_token"+ofTheBinding)
	wait(t, 12)
	if healthy, err := c.Healthy(t.Context(), name); err != nil || len(healthy) != 1 {
		t.Errorf("a wrong token leaves %v, %v\n%s", healthy, err, tail(backend))
	}
	put(back.VcapServices)
	waitLog(t, backend, "the new ca"+ofTheBinding+" is in use")
	waitLog(t, backend, "the new tokens"+ofTheBinding+" are in use")
	c.revoke(t, binding["service_token"])
	c.revoke(t, binding["agent_token"])
	c.policyInForce(t, caller, name)
	if n := len(said(backend, "the servers do not know")); n != 1 {
		t.Errorf("the new tokens are not good:\n%s", tail(backend))
	}
	// The app's own check is still there: it was registered beside the service.
	var checks []struct{ Name, Status string }
	if err := c.Consul(t.Context(), http.MethodGet, "/v1/health/checks/"+name, nil, &checks); err != nil {
		t.Fatal(err)
	}
	if len(checks) != 1 || checks[0].Name != "health" || checks[0].Status != "passing" {
		t.Errorf("the checks are %v", checks)
	}
}

// roots: new root certificates of the mesh give every sidecar a new certificate,
// and no request is lost.
func (c *closedMesh) roots(t *testing.T) {
	t.Parallel()
	before := map[*cell.RunningApp][]string{}
	loads := map[string]*load.Load{}
	for _, w := range c.modes() {
		name := "roots-" + w.name
		back, _ := w.app(t, name, `protocol = "http"`)
		backend := w.start(t, back)
		front, _ := w.app(t, name+"-caller", fmt.Sprintf("upstream %q { port = %d }", name, frontPort))
		caller := w.start(t, front, name)
		c.policyInForce(t, caller, name)
		for _, app := range []*cell.RunningApp{backend, caller} {
			before[app] = certificates(t, app)
		}
		loads[w.name] = load.Start(load.Plan{Kind: load.HTTP, Target: backURL + "slow?ms=5", Rate: 100, Timeout: answered, Dial: caller.Instance(0).Dial})
	}
	err := c.Consul(t.Context(), http.MethodPut, "/v1/connect/ca/configuration", map[string]any{
		"Provider": "consul", "Config": map[string]any{"PrivateKeyType": "ec", "PrivateKeyBits": 384},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var roots struct{ Roots []struct{ Active bool } }
	if err := c.Consul(t.Context(), http.MethodGet, "/v1/connect/ca/roots", nil, &roots); err != nil || len(roots.Roots) < 2 {
		t.Fatalf("the roots are not new: %v %v", roots, err)
	}
	// Agents and servers ask for the new ones after a random part of half a minute.
	eventually(t, "all have new certificates", func(context.Context) error {
		for app, old := range before {
			now := certificates(t, app)
			if !slices.ContainsFunc(now, func(serial string) bool { return !slices.Contains(old, serial) }) {
				return fmt.Errorf("%s had %v and has %v", app.App().Name, old, now)
			}
		}
		return nil
	})
	for name, requests := range loads {
		result := requests.Stop()
		t.Logf("%s: %v", name, result)
		if result.Lost > 0 || result.Sent < 100 {
			t.Errorf("%s: lost: %v", name, result)
		}
	}
}

// certificates are the serial numbers of those that an app's Envoy has. It keeps
// an old one for the connections that have it.
func certificates(t *testing.T, app *cell.RunningApp) (serials []string) {
	t.Helper()
	text, err := foundation.From(deadline(t), app.Instance(0), "http://127.0.0.1:19000/certs")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Certificates []struct {
			Chain []struct {
				SerialNumber string `json:"serial_number"`
			} `json:"cert_chain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	for _, one := range all.Certificates {
		for _, certificate := range one.Chain {
			serials = append(serials, certificate.SerialNumber)
		}
	}
	return serials
}

// login: the tokens of an auth method are made by a login, renewed before they
// expire, and ended with the instance.
func (c *closedMesh) login(t *testing.T, w closedMode) {
	name := "login-" + w.name
	back, binding := w.app(t, name, `protocol = "http"`)
	jwt := c.authMethod(t, name, back)
	c.bind(&back, map[string]any{
		"auth_method": name, "jwt": jwt, "agent_token": binding["agent_token"], "ca": c.Secure.CA.PEM, "gossip_key": c.Secure.GossipKey, "auto_encrypt": true,
		"addresses": []string{"secure-server.apps.internal"}, "datacenter": "cf",
	})
	refused, wrong := w.app(t, name+"-refused")
	delete(wrong, "service_token")
	wrong["auth_method"], wrong["jwt"] = name, jwt[:len(jwt)-8]+"AAAAAAAA"
	c.bind(&refused, wrong)
	backend := w.start(t, back)
	waitLog(t, backend, "logged in (")
	waitLog(t, w.launch(t, refused), fmt.Sprintf("the auth method %q%s refuses the jwt", name, ofTheBinding))
	front, _ := w.app(t, name+"-caller", fmt.Sprintf("upstream %q { port = %d }", name, frontPort))
	caller := w.start(t, front, name)
	c.policyInForce(t, caller, name)
	first := c.logins(t, name)
	if len(first) != 1 {
		t.Fatalf("there are %d logins", len(first))
	}
	// Consul's shortest login is a minute; two thirds of it are over then.
	waitLog(t, backend, "logged in again, the old login has ended")
	if second := c.logins(t, name); len(second) != 1 || second[0] == first[0] {
		t.Errorf("the logins were %v and are %v", first, second)
	}
	c.policyInForce(t, caller, name)
	if err := backend.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if left := c.logins(t, name); len(left) != 0 {
		t.Errorf("a login has outlived its instance")
	}
}

// logins are the accessors of the tokens that logins of an auth method have made.
func (c *closedMesh) logins(t *testing.T, method string) (accessors []string) {
	t.Helper()
	var all []struct{ AccessorID, SecretID, AuthMethod string }
	if err := c.Consul(t.Context(), http.MethodGet, "/v1/acl/tokens", nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, token := range all {
		if token.AuthMethod == method {
			accessors = append(accessors, token.AccessorID)
			c.keepSecret("login", token.SecretID)
		}
	}
	return accessors
}

// authMethod makes one whose tokens may do what the app needs, and a JWT for it.
func (c *closedMesh) authMethod(t *testing.T, name string, app cell.App) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	mesh, _, err := meshfile.Load(app.Dir, meshfile.Context{})
	if err != nil {
		t.Fatal(err)
	}
	var policies []map[string]string
	for _, policy := range []render.Policy{render.AgentPolicy(app.Name), render.ServicePolicy(mesh, app.Name)} {
		if err := c.Policy(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
		policies = append(policies, map[string]string{"Name": policy.Name})
	}
	for _, call := range []struct {
		path string
		body map[string]any
	}{
		{"/v1/acl/auth-method", map[string]any{
			"Name": name, "Type": "jwt", "MaxTokenTTL": "1m", "Config": map[string]any{
				"JWTValidationPubKeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
				"BoundAudiences":       []string{"mesh"}, "JWTSupportedAlgs": []string{"ES256"},
				"ClaimMappings": map[string]string{"sub": "sub"},
			},
		}},
		{"/v1/acl/role", map[string]any{"Name": app.Name, "Policies": policies}},
		{"/v1/acl/binding-rule", map[string]any{"AuthMethod": name, "BindType": "role", "BindName": app.Name, "Selector": `value.sub == "` + app.Name + `"`}},
	} {
		if err := c.Consul(t.Context(), http.MethodPut, call.path, call.body, nil); err != nil {
			t.Fatal(err)
		}
	}
	return signJWT(t, key, map[string]any{
		"aud": "mesh", "sub": app.Name, "iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
}

func signJWT(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(payload)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}
