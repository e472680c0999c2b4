package cell

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/consul-mesh/mesh-buildpack/integration/container"
)

const (
	// identityDir is where a container has its own certificate and key.
	identityDir     = "/etc/cf-instance-credentials"
	certificateFile = "instance.crt"
	keyFile         = "instance.key"
	// systemCertificates has what the platform's operator trusts.
	systemCertificates = "/etc/cf-system-certificates"

	keyBits = 2048
	// renamePause is between the names of a new key and of its certificate. The
	// platform makes no pause, but a moment there is.
	renamePause = 50 * time.Millisecond
)

// authority issues the certificates of containers: an intermediate of a root.
type authority struct {
	root, certificate *x509.Certificate
	key               *rsa.PrivateKey
}

// identityAuthority is that of all cells of this program.
var identityAuthority = sync.OnceValues(func() (*authority, error) {
	rootKey, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: newSerial(), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	rootTemplate := template("instance identity root CA")
	root, err := sign(rootTemplate, rootTemplate, &rootKey.PublicKey, rootKey)
	if err != nil {
		return nil, err
	}
	certificate, err := sign(template("instance identity CA"), root, &key.PublicKey, rootKey)
	return &authority{root, certificate, key}, err
})

func sign(template, parent *x509.Certificate, public *rsa.PublicKey, by *rsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newSerial() *big.Int {
	id := uuid.New()
	return new(big.Int).SetBytes(id[:])
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// keys are functions that make a key, by app and turn.
var keys sync.Map

// identityKey is the key that an app's certificates have in turn. An RSA key costs
// a tenth of a second of a processor, so a program makes two for each name of an
// app: containers of one app share theirs, those of two apps never do, and one that
// is renewed has another key than before.
func identityKey(app string, turn int) (*rsa.PrivateKey, error) {
	made, _ := keys.LoadOrStore(fmt.Sprintf("%s/%d", app, turn%2), sync.OnceValues(func() (*rsa.PrivateKey, error) {
		return rsa.GenerateKey(rand.Reader, keyBits)
	}))
	return made.(func() (*rsa.PrivateKey, error))()
}

// IdentityCA is the certificate, as PEM, of the authority that issues those of
// containers. Its own issuer is what containers have in CF_SYSTEM_CERT_PATH.
func (c *Cell) IdentityCA() []byte { return certificatePEM(c.authority.certificate) }

// IssueIdentity issues a certificate as a container of the app has it, followed by
// the authority's, and its key, both as PEM. No such container need exist.
func (c *Cell) IssueIdentity(app App, guid, address string, life time.Duration) (certificate, key []byte, err error) {
	return c.issueIdentity(app.withDefaults(), guid, address, life, 0)
}

func (c *Cell) issueIdentity(app App, guid, address string, life time.Duration, turn int) (certificate, key []byte, err error) {
	private, err := identityKey(app.Name, turn)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	leaf, err := sign(&x509.Certificate{
		SerialNumber: newSerial(),
		Subject: pkix.Name{CommonName: guid, OrganizationalUnit: []string{
			"organization:" + c.organizationGUID(app), "space:" + c.spaceGUID(app), "app:" + c.appGUID(app),
		}},
		DNSNames: []string{guid}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: now, NotAfter: now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, c.authority.certificate, &private.PublicKey, c.authority.key)
	if err != nil {
		return nil, nil, err
	}
	key = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	return append(certificatePEM(leaf), c.IdentityCA()...), key, nil
}

// identity is a container's certificate and key, in files.
type identity struct {
	cell    *Cell
	app     App
	guid    string
	address netip.Addr
	dir     string
	turn    int // certificates so far
}

func (c *Cell) newIdentity(app App, guid string, address netip.Addr) (*identity, error) {
	i := &identity{cell: c, app: app, guid: guid, address: address, dir: filepath.Join(c.dir, "identity-"+guid)}
	err := os.Mkdir(i.dir, 0o755)
	if err == nil {
		err = i.renew()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("failed to issue an identity: %w", err), i.remove())
	}
	return i, nil
}

func (i *identity) mounts() []container.Mount {
	return []container.Mount{
		{Source: i.dir, Target: identityDir, ReadOnly: true},
		{Source: i.cell.systemCertificatesDir(), Target: systemCertificates, ReadOnly: true},
	}
}

// renew puts a new key into place and then its certificate.
func (i *identity) renew() error {
	certificate, key, err := i.cell.issueIdentity(i.app, i.guid, i.address.String(), i.cell.options.IdentityLife, i.turn)
	if err != nil {
		return err
	}
	if err := i.put(keyFile, key); err != nil {
		return err
	}
	if i.turn > 0 {
		time.Sleep(renamePause)
	}
	i.turn++
	return i.put(certificateFile, certificate)
}

func (i *identity) put(name string, content []byte) error {
	path := filepath.Join(i.dir, name)
	if err := os.WriteFile(path+".tmp", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// keep renews until the container is gone.
func (i *identity) keep(gone <-chan struct{}) {
	for {
		select {
		case <-time.After(renewedAfter(i.cell.options.IdentityLife)):
			if err := i.renew(); err != nil {
				fmt.Fprintf(os.Stderr, "cell: failed to renew the identity of %s: %s\n", i.guid, err)
			}
		case <-gone:
			_ = i.remove() // with the cell's files at the latest
			return
		}
	}
}

func (i *identity) remove() error { return os.RemoveAll(i.dir) }

// renewedAfter is half an hour before the end, or an eighth of a short life.
func renewedAfter(life time.Duration) time.Duration {
	if life > 4*time.Hour {
		return life - 30*time.Minute
	}
	return life - life/8
}

func (c *Cell) systemCertificatesDir() string { return filepath.Join(c.dir, "system-certificates") }

func (c *Cell) installSystemCertificates() error {
	if err := os.Mkdir(c.systemCertificatesDir(), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.systemCertificatesDir(), "trusted-ca-1.crt"), certificatePEM(c.authority.root), 0o644)
}
