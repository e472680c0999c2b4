package foundation

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/src/meshfile"
	"github.com/consul-mesh/mesh-buildpack/src/render"
)

// Secure is what makes a control plane closed by default: ACLs, a gossip key,
// and TLS, for which agents get certificates by auto_encrypt.
type Secure struct {
	CA         Authority
	GossipKey  string
	Management string // the operator's token

	servers string // the servers' own token
}

// NewSecure makes all of it anew.
func NewSecure() (*Secure, error) {
	ca, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return &Secure{
		CA: ca, GossipKey: base64.StdEncoding.EncodeToString(key),
		Management: uuid.NewString(), servers: uuid.NewString(),
	}, nil
}

// Closed is the same cell with a control plane of its own, which is closed by
// default and not started yet.
func (f *Foundation) Closed() (*Foundation, error) {
	secure, err := NewSecure()
	closed := *f
	closed.Secure, closed.Servers, closed.serversApp = secure, nil, SecureApp
	return &closed, err
}

func (f *Foundation) serverAddresses() []string {
	var all []string
	for i := range serverCount {
		all = append(all, fmt.Sprintf("%d.%s.apps.internal", i, f.serversApp))
	}
	return all
}

// AccessPolicies are the network policies between an app and this control
// plane, in both directions.
func (f *Foundation) AccessPolicies(app string) []cell.Policy {
	return []cell.Policy{
		{Source: app, Destination: f.serversApp, Protocol: "tcp", Start: 8300, End: 8301},
		{Source: app, Destination: f.serversApp, Protocol: "udp", Start: 8301},
		{Source: f.serversApp, Destination: app, Protocol: "tcp", Start: 8301},
		{Source: f.serversApp, Destination: app, Protocol: "udp", Start: 8301},
	}
}

// APIPort is where the servers' HTTP API is for apps without agents.
func (f *Foundation) APIPort() int {
	if f.Secure != nil {
		return serverHTTPS
	}
	return serverHTTP
}

// AgentlessAccess is the network policy between an app without an agent and this
// control plane.
func (f *Foundation) AgentlessAccess(app string) cell.Policy {
	return cell.Policy{Source: app, Destination: f.serversApp, Protocol: "tcp", Start: serverHTTPS, End: serverGRPCTLS}
}

// Authority signs certificates.
type Authority struct {
	PEM string // its own certificate

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes a CA.
func NewAuthority() (a Authority, err error) {
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return a, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA " + uuid.NewString()},
		IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := sign(template, template, a.key, a.key)
	if err != nil {
		return a, err
	}
	a.PEM = encode("CERTIFICATE", der)
	a.certificate, err = x509.ParseCertificate(der)
	return a, err
}

// Server makes a certificate for servers of a datacenter, and its key.
func (a Authority) Server(datacenter string) (certificate, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "server." + datacenter + ".consul"},
		DNSNames:    []string{"server." + datacenter + ".consul", "localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, private, a.key)
	if err != nil {
		return "", "", err
	}
	text, err := x509.MarshalECPrivateKey(private)
	return encode("CERTIFICATE", der), encode("EC PRIVATE KEY", text), err
}

func sign(template, parent *x509.Certificate, subject, signer *ecdsa.PrivateKey) ([]byte, error) {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	return x509.CreateCertificate(rand.Reader, template, parent, subject.Public(), signer)
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// configure writes the servers' configuration into their app's source.
func (s *Secure) configure(source string, join []string) error {
	certificate, key, err := s.CA.Server("cf")
	if err != nil {
		return err
	}
	dir := filepath.Join(source, "config")
	const there = "/home/vcap/app/config/"
	config, err := json.Marshal(map[string]any{
		"acl": map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": s.Management, "agent": s.servers},
		},
		"encrypt":    s.GossipKey,
		"ports":      map[string]int{"https": serverHTTPS, "grpc_tls": serverGRPCTLS},
		"retry_join": join,
		"tls": map[string]any{
			"defaults": map[string]any{
				"ca_file": there + "ca.pem", "cert_file": there + "server.pem", "key_file": there + "server-key.pem",
				"verify_outgoing": true,
			},
			"internal_rpc": map[string]bool{"verify_incoming": true, "verify_server_hostname": true},
		},
		"auto_encrypt": map[string]bool{"allow_tls": true},
	})
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"secure.json": string(config), "join.hcl": "", "ca.pem": s.CA.PEM, "server.pem": certificate, "server-key.pem": key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Binding makes the tokens that an app with this source needs, with the
// smallest policies, and returns what its bound service says.
func (f *Foundation) Binding(ctx context.Context, app, source string) (map[string]any, error) {
	mesh, _, err := meshfile.Load(source, meshfile.Context{App: map[string]string{"name": app}})
	if err != nil {
		return nil, err
	}
	agent, err := f.Token(ctx, render.AgentPolicy(app))
	if err != nil {
		return nil, err
	}
	service, err := f.Token(ctx, render.ServicePolicy(mesh, app))
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"agent_token": agent, "service_token": service,
		"retry_join": f.serverAddresses(), "datacenter": "cf",
		"ca": f.Secure.CA.PEM, "gossip_key": f.Secure.GossipKey, "auto_encrypt": true,
	}, nil
}

// Token makes a token with one policy, which is made or changed before.
func (f *Foundation) Token(ctx context.Context, policy render.Policy) (string, error) {
	if err := f.Policy(ctx, policy); err != nil {
		return "", err
	}
	token := uuid.NewString()
	return token, f.Consul(ctx, http.MethodPut, "/v1/acl/token", map[string]any{
		"SecretID": token, "Description": policy.About, "Policies": []map[string]string{{"Name": policy.Name}},
	}, nil)
}

// Policy makes a policy, or changes the one of its name.
func (f *Foundation) Policy(ctx context.Context, policy render.Policy) error {
	body := map[string]any{"Name": policy.Name, "Description": policy.About, "Rules": policy.Text()}
	var there []struct{ ID, Name string }
	if err := f.Consul(ctx, http.MethodGet, "/v1/acl/policies", nil, &there); err != nil {
		return err
	}
	for _, p := range there {
		if p.Name == policy.Name {
			return f.Consul(ctx, http.MethodPut, "/v1/acl/policy/"+p.ID, body, nil)
		}
	}
	return f.Consul(ctx, http.MethodPut, "/v1/acl/policy", body, nil)
}

// ServersPolicy is that of the servers' own agents.
func ServersPolicy() render.Policy { return render.ServerPolicy("server-") }

// serverToken makes the token that the servers have in their configuration.
func (f *Foundation) serverToken(ctx context.Context) error {
	policy := ServersPolicy()
	if err := f.Policy(ctx, policy); err != nil {
		return err
	}
	return f.Consul(ctx, http.MethodPut, "/v1/acl/token", map[string]any{
		"SecretID": f.Secure.servers, "Description": policy.About, "Policies": []map[string]string{{"Name": policy.Name}},
	}, nil)
}

// Intend writes the intentions that the upstreams of some sources need.
func (f *Foundation) Intend(ctx context.Context, sources ...string) error {
	var meshes []*meshfile.Mesh
	for _, source := range sources {
		mesh, _, err := meshfile.Load(source, meshfile.Context{})
		if err != nil {
			return err
		}
		meshes = append(meshes, mesh)
	}
	for _, intention := range render.Intentions(meshes...) {
		cmd := exec.CommandContext(ctx, f.Binaries.Consul(), "config", "write", "-")
		cmd.Env = []string{"CONSUL_HTTP_ADDR=" + f.Servers.Instance(0).Address() + ":8080", "CONSUL_HTTP_TOKEN=" + f.Secure.Management}
		cmd.Stdin = strings.NewReader(intention.Text())
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("failed to write the intentions of %s: %w\n%s", intention.Destination, err, output)
		}
	}
	return nil
}

// Bind is VCAP_SERVICES with one user-provided service.
func Bind(credentials map[string]any) string {
	var text bytes.Buffer
	// Strings, lists and flags only.
	_ = json.NewEncoder(&text).Encode(map[string]any{"user-provided": []any{map[string]any{
		"name": "consul-credentials", "instance_name": "consul-credentials", "label": "user-provided",
		"tags": []string{"consul"}, "credentials": credentials,
	}}})
	return text.String()
}
