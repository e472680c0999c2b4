package cell_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

const (
	certificatePath = "/etc/cf-instance-credentials/instance.crt"
	keyPath         = "/etc/cf-instance-credentials/instance.key"
)

// read reads a file of a container.
func read(t *testing.T, from *cell.Guest, path string) []byte {
	t.Helper()
	text, err := from.ReadFile(path)
	must(t, err)
	return text
}

// certificates are those in PEM, in order.
func certificates(t *testing.T, text []byte) (all []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		all = append(all, c)
	}
	return all
}

// units are the organizational units of an app's certificates, as it is told.
func units(t *testing.T, vcap string) []string {
	a := vcapApplication(t, vcap)
	return []string{
		"app:" + a["application_id"].(string),
		"organization:" + a["organization_id"].(string),
		"space:" + a["space_id"].(string),
	}
}

// identified checks a container's certificate and returns its key.
func identified(t *testing.T, c *cell.Cell, g *cell.Guest, guid string, want []string) *rsa.PrivateKey {
	t.Helper()
	text := read(t, g, certificatePath)
	chain := certificates(t, text)
	pair, err := tls.X509KeyPair(text, read(t, g, keyPath))
	must(t, err)
	leaf, roots, between := chain[0], x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, g, "/etc/cf-system-certificates/trusted-ca-1.crt"))
	if len(chain) != 2 || !slices.EqualFunc(chain[1:], certificates(t, c.IdentityCA()), (*x509.Certificate).Equal) {
		t.Fatalf("there are %d certificates, or the second is not the CA's", len(chain))
	}
	between.AddCert(chain[1])
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: guid, KeyUsages: []x509.ExtKeyUsage{usage}})
		must(t, err)
	}
	must(t, leaf.VerifyHostname(g.Address()))
	got := slices.Sorted(slices.Values(leaf.Subject.OrganizationalUnit))
	if leaf.Subject.CommonName != guid || !slices.Equal(got, want) || len(leaf.DNSNames) != 1 || len(leaf.IPAddresses) != 1 {
		t.Errorf("%s has %s of %v", guid, leaf.Subject, leaf.DNSNames)
	}
	key, isRSA := pair.PrivateKey.(*rsa.PrivateKey)
	if life := leaf.NotAfter.Sub(leaf.NotBefore); !isRSA || key.N.BitLen() != 2048 || life != 24*time.Hour {
		t.Errorf("the key is a %T, and it is valid for %s", pair.PrivateKey, life)
	}
	return key
}

// TestIdentity: instances, tasks and stagings have a certificate of their app's.
func TestIdentity(t *testing.T) {
	c := newCell(t, cell.Options{})
	a := app(t, "app", nil)
	a.Buildpacks = []cell.Buildpack{buildpack(t, "certified", files{
		"bin/finalize": "#!/bin/bash\ncp $CF_INSTANCE_CERT $CF_INSTANCE_KEY $1/\n",
		"bin/release":  "#!/bin/bash\necho 'default_process_types: {}'\n",
	})}
	i := push(t, c, a).Instance(0)
	env := environment(t, i, i.Processes()[0].Pid)
	if env["CF_INSTANCE_CERT"] != certificatePath || env["CF_INSTANCE_KEY"] != keyPath || env["CF_SYSTEM_CERT_PATH"] != "/etc/cf-system-certificates" {
		t.Errorf("got %v", env)
	}
	ours := units(t, env["VCAP_APPLICATION"])
	key := identified(t, c, i.Guest, i.GUID(), ours)
	const look = "cd /etc/cf-instance-credentials; stat -c '%a %n' *; id -un; touch x 2>&1 || rm -f instance.key 2>&1"
	if got := ssh(t, i, look+" || true"); !strings.HasPrefix(got, "644 instance.crt\n644 instance.key\nvcap\n") || strings.Count(got, "Read-only") != 2 {
		t.Errorf("got %s", got)
	}

	staged, err := tls.X509KeyPair(read(t, i.Guest, "/home/vcap/app/instance.crt"), read(t, i.Guest, "/home/vcap/app/instance.key"))
	must(t, err)
	if got := slices.Sorted(slices.Values(staged.Leaf.Subject.OrganizationalUnit)); !slices.Equal(got, ours) || staged.Leaf.Subject.CommonName == i.GUID() {
		t.Errorf("staging had %s", staged.Leaf.Subject)
	}

	b := app(t, "other", nil)
	b.Space = "elsewhere"
	other := push(t, c, b)
	task := startTask(t, other, "exec sleep 1000", cell.TaskOptions{})
	theirs := units(t, environment(t, other.Instance(0), other.Instance(0).Processes()[0].Pid)["VCAP_APPLICATION"])
	if identified(t, c, task.Guest, task.GUID(), theirs).Equal(key) {
		t.Error("two apps have the same key")
	}

	certificate, _, err := c.IssueIdentity(a, "anything", "192.0.2.7", time.Minute)
	must(t, err)
	if leaf := certificates(t, certificate)[0]; leaf.Subject.CommonName != "anything" || !slices.Equal(slices.Sorted(slices.Values(leaf.Subject.OrganizationalUnit)), ours) {
		t.Errorf("issued for %s", leaf.Subject)
	}
}

// TestIdentityIsRenewed, an eighth of its life before its end: first the key, then
// the certificate.
func TestIdentityIsRenewed(t *testing.T) {
	const life = 16 * time.Second // an eighth of it is what a busy machine may be late
	c := newCell(t, cell.Options{IdentityLife: life})
	i := push(t, c, app(t, "app", nil)).Instance(0)
	var first, last []byte // certificates that their keys fitted
	until(t, "a new key and an old certificate, and then both new", func() bool {
		certificate := read(t, i.Guest, certificatePath)
		_, err := tls.X509KeyPair(certificate, read(t, i.Guest, keyPath))
		switch {
		case err == nil && first == nil:
			first, last = certificate, certificate
		case err == nil:
			last = certificate
			return !bytes.Equal(first, last)
		case !bytes.Equal(certificate, last):
			t.Fatal("there is a new certificate with an old key")
		}
		return false
	})
	before, after := certificates(t, first)[0], certificates(t, last)[0]
	if got := after.NotBefore.Sub(before.NotBefore); got < life/2 || before.NotAfter.Before(after.NotBefore) {
		t.Errorf("renewed after %s", got)
	}
	if before.PublicKey.(*rsa.PublicKey).Equal(after.PublicKey) || before.Subject.String() != after.Subject.String() {
		t.Errorf("%s is renewed as %s", before.Subject, after.Subject)
	}
}
