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

// policyInForce says that an app's Envoy hears of a change of intentions, which
// it does only with a good token.
func (c *closedMesh) policyInForce(t *testing.T, caller *cell.RunningApp, from, to string, port int) {
	t.Helper()
	for _, action := range []string{"allow", "deny", "allow"} {
		if err := c.Intention(t.Context(), from, to, action); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the intention says "+action, func(ctx context.Context) error {
			_, err := foundation.From(ctx, caller.Instance(0), fmt.Sprintf("http://127.0.0.1:%d/", port))
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
func (c *closedMesh) exchanged(t *testing.T) {
	t.Parallel()
	back, binding := c.app(t, "exchanged", `protocol = "http"`, `check "health" { http = "/health" }`)
	const file = "/home/vcap/app/bound.json"
	text := back.VcapServices
	back.VcapServices, back.Env = "-", map[string]string{"VCAP_SERVICES_FILE_PATH": file}
	// The platform's own files are not in the app's source. This one stands for them.
	if err := os.WriteFile(filepath.Join(back.Dir, "bound.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	backend := start(t, back)
	front, _ := c.app(t, "exchanged-caller", `upstream "exchanged" { port = 9001 }`)
	caller := start(t, front, "exchanged")
	c.policyInForce(t, caller, "exchanged-caller", "exchanged", 9001)

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
	waitLog(t, backend, `the servers do not know the service_token of the bound service "consul-credentials"`)
	wait(t, 12)
	if healthy, err := c.Healthy(t.Context(), "exchanged"); err != nil || len(healthy) != 1 {
		t.Errorf("a wrong token leaves %v, %v\n%s", healthy, err, tail(backend))
	}
	put(back.VcapServices)
	waitLog(t, backend, `the agent trusts the new ca of the bound service "consul-credentials"`)
	waitLog(t, backend, `the agent and its services use the new tokens of the bound service "consul-credentials"`)
	c.revoke(t, binding["service_token"])
	c.revoke(t, binding["agent_token"])
	c.policyInForce(t, caller, "exchanged-caller", "exchanged", 9001)
	if n := len(said(backend, "the servers do not know")); n != 1 {
		t.Errorf("the new tokens are not good:\n%s", tail(backend))
	}
	// The app's own check is still there: it was registered beside the service.
	var checks []struct{ Name, Status string }
	if err := c.Consul(t.Context(), http.MethodGet, "/v1/health/checks/exchanged", nil, &checks); err != nil {
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
	back, _ := c.app(t, "roots", `protocol = "http"`)
	backend := start(t, back)
	front, _ := c.app(t, "roots-caller", `upstream "roots" { port = 9001 }`)
	caller := start(t, front, "roots")
	c.policyInForce(t, caller, "roots-caller", "roots", 9001)
	apps := []*cell.RunningApp{backend, caller}
	before := [][]string{certificates(t, backend), certificates(t, caller)}

	load, stop := context.WithCancel(t.Context())
	sent, lost := 0, 0
	var last error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for load.Err() == nil {
			sent++
			if _, err := foundation.From(t.Context(), caller.Instance(0), "http://127.0.0.1:9001/slow?ms=5"); err != nil {
				lost++
				last = err
			}
		}
	}()
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
	// Agents ask for their new ones after a random part of half a minute.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = foundation.Eventually(ctx, "both have new certificates", func(context.Context) error {
		for i, app := range apps {
			now := certificates(t, app)
			if !slices.ContainsFunc(now, func(serial string) bool { return !slices.Contains(before[i], serial) }) {
				return fmt.Errorf("%s had %v and has %v", app.App().Name, before[i], now)
			}
		}
		return nil
	})
	stop()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests, %d lost", sent, lost)
	if lost > 0 || sent < 100 {
		t.Errorf("%d of %d requests lost, the last with: %v", lost, sent, last)
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
func (c *closedMesh) login(t *testing.T) {
	t.Parallel()
	back, binding := c.app(t, "login", `protocol = "http"`)
	jwt := c.authMethod(t, "test-jwt", back)
	c.bind(&back, map[string]any{
		"auth_method": "test-jwt", "jwt": jwt, "agent_token": binding["agent_token"], "ca": c.Secure.CA.PEM, "gossip_key": c.Secure.GossipKey, "auto_encrypt": true,
		"addresses": []string{"secure-server.apps.internal"}, "datacenter": "cf",
	})
	refused, wrong := c.app(t, "login-refused")
	delete(wrong, "service_token")
	wrong["auth_method"], wrong["jwt"] = "test-jwt", jwt[:len(jwt)-8]+"AAAAAAAA"
	c.bind(&refused, wrong)
	backend := start(t, back)
	waitLog(t, backend, "logged in (")
	waitLog(t, launch(t, refused), `the auth method "test-jwt"`+ofTheBinding+" refuses the jwt")
	front, _ := c.app(t, "login-caller", `upstream "login" { port = 9001 }`)
	caller := start(t, front, "login")
	c.policyInForce(t, caller, "login-caller", "login", 9001)
	first := c.logins(t, "test-jwt")
	if len(first) != 1 {
		t.Fatalf("there are %d logins", len(first))
	}
	// Consul's shortest login is a minute; two thirds of it are over then.
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if _, err := backend.WaitLog(ctx, "logged in again, the old login has ended"); err != nil {
		t.Fatal(err)
	}
	if second := c.logins(t, "test-jwt"); len(second) != 1 || second[0] == first[0] {
		t.Errorf("the logins were %v and are %v", first, second)
	}
	c.policyInForce(t, caller, "login-caller", "login", 9001)
	if err := backend.Stop(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if left := c.logins(t, "test-jwt"); len(left) != 0 {
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
