package credentials

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// How long a value may be, in bytes. A longer value is a mistake, or an attack.
const (
	maxValue = 4 << 10
	maxJWT   = 64 << 10
	maxCA    = 256 << 10
)

// decoder collects what is wrong with a binding, so that all of it is said at
// once.
type decoder struct {
	values map[string]any
	system string // the folder of the certificates that the platform trusts
	wrong  []string
}

func (d *decoder) fail(key, format string, args ...any) {
	d.wrong = append(d.wrong, key+": "+fmt.Sprintf(format, args...))
}

// unresolved says what helps where a CredHub reference is not resolved, by the
// variable that has led to it: the platform resolves references in VCAP_SERVICES alone.
var unresolved = map[string]string{
	envServices: "the instance needs an identity that CredHub knows, which the platform's operator gives it",
	envFile:     withoutFeature("file-based-vcap-services"),
	envRoot:     withoutFeature("service-binding-k8s"),
}

func withoutFeature(name string) string {
	return fmt.Sprintf("it resolves none in files: turn the app feature %s off, by "+
		`cf curl -X PATCH /v3/apps/$(cf app APP --guid)/features/%s -d '{"enabled": false}', and restart the app`, name, name)
}

// decode checks the binding, and says every mistake at once.
func (b *binding) decode(system string) (*Credentials, []string, error) {
	d := &decoder{values: b.Credentials, system: system}
	c := &Credentials{Binding: b.Name}
	if _, reference := d.values[keyCredHub]; reference {
		return nil, nil, fmt.Errorf("the platform has not resolved the CredHub reference of the bound service %s\nhint: %s",
			shown(b.Name), unresolved[b.from])
	}
	c.Datacenter = d.name(keyDatacenter)
	c.Namespace = d.name(keyNamespace)
	c.Partition = d.name(keyPartition)
	c.AuthMethod = d.name(keyAuthMethod)
	c.RetryJoin = d.addresses()
	c.CA = d.certificates()
	c.VerifyServerName = d.flag(keyServerName, true)
	c.AutoEncrypt = d.flag(keyAutoEncrypt, false)
	c.Plaintext = d.flag(keyPlaintext, false)
	c.GossipKey = d.gossipKey()
	c.JWT = d.secret(keyJWT, maxJWT)
	d.tokens(c)
	c.DefaultPolicy = d.text(keyDefault, maxValue)
	switch c.DefaultPolicy {
	case "":
		c.DefaultPolicy = "deny"
	case "allow", "deny":
	default:
		d.fail(keyDefault, `is neither "allow" nor "deny"`)
	}
	if c.AutoEncrypt && c.CA == "" {
		d.fail(keyCA, "is missing, and auto_encrypt needs it")
	}
	if c.AutoEncrypt && c.AuthMethod != "" && c.AgentToken == "" {
		d.fail(keyAgentToken, "is missing: auto_encrypt needs it before there can be a login")
	}
	known := 0
	var unknown []string
	for key := range d.values {
		if slices.Contains(keys, key) {
			known++
		} else {
			unknown = append(unknown, shown(key))
		}
	}
	slices.Sort(unknown)
	if known == 0 {
		d.fail("it has none of", "%s", strings.Join(keys, ", "))
	}
	if len(d.wrong) > 0 {
		return nil, nil, fmt.Errorf("the bound service %s cannot be used: %s\nhint: docs/security.md has the shape of a binding",
			shown(b.Name), strings.Join(d.wrong, "; "))
	}
	return c, unknown, nil
}

// tokens decodes the tokens: one for agent and services, or one for each, or none
// where a login gives them.
func (d *decoder) tokens(c *Credentials) {
	both := d.secret(keyToken, maxValue)
	c.AgentToken = d.secret(keyAgentToken, maxValue)
	c.ServiceToken = d.secret(keyServiceToken, maxValue)
	switch {
	case both != "" && (c.AgentToken != "" || c.ServiceToken != "" || c.AuthMethod != ""):
		d.fail(keyToken, "is for agent and services, so that agent_token, service_token and auth_method cannot stand beside it")
	case both != "":
		c.AgentToken, c.ServiceToken = both, both
	case c.AuthMethod != "" && c.ServiceToken != "":
		d.fail(keyServiceToken, "comes from the login with auth_method, and cannot stand beside it")
	case c.AuthMethod == "" && c.AgentToken != "" && c.ServiceToken == "":
		d.fail(keyServiceToken, "is missing, with an agent_token")
	case c.ServiceToken != "" && c.AgentToken == "":
		d.fail(keyAgentToken, "is missing, with a service_token")
	}
	switch {
	case c.AuthMethod != "" && c.JWT == "":
		d.fail(keyJWT, "is missing, with an auth_method")
	case c.AuthMethod == "" && c.JWT != "":
		d.fail(keyAuthMethod, "is missing, with a jwt")
	}
}

// text is a string value without control characters.
func (d *decoder) text(key string, most int) string {
	value, given := d.values[key]
	if !given || value == nil {
		return ""
	}
	text, ok := value.(string)
	switch {
	case !ok:
		d.fail(key, "is no string")
	case len(text) > most:
		d.fail(key, "has %d bytes, and at most %d make sense", len(text), most)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		d.fail(key, "has a line break or another control character in it")
	default:
		return text
	}
	return ""
}

var isName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func (d *decoder) name(key string) string {
	name := d.text(key, maxValue)
	if name != "" && !isName.MatchString(name) {
		d.fail(key, "has a character that is no letter, digit, dash, dot or underscore")
	}
	return name
}

// secret is a token or the like. It becomes a header's value.
func (d *decoder) secret(key string, most int) Secret {
	text := d.text(key, most)
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\'' || r == '\\' }) {
		d.fail(key, "has a character that no token has, such as a space or a quote")
		return ""
	}
	return Secret(text)
}

func (d *decoder) flag(key string, otherwise bool) bool {
	switch value := d.values[key].(type) {
	case nil:
		return otherwise
	case bool:
		return value
	case string:
		if flag, err := strconv.ParseBool(value); err == nil {
			return flag
		}
	}
	d.fail(key, "is neither true nor false")
	return otherwise
}

func (d *decoder) addresses() []string {
	key := keyRetryJoin
	if d.values[keyAddresses] != nil {
		if d.values[key] != nil {
			d.fail(keyAddresses, "is another name of retry_join, which stands beside it")
		}
		key = keyAddresses
	}
	var all []string
	switch value := d.values[key].(type) {
	case nil:
		return nil
	case string:
		if strings.HasPrefix(value, "provider=") {
			all = []string{value} // Consul's cloud auto-join has spaces in it
		} else {
			all = list(value)
		}
	case []any:
		for _, item := range value {
			text, _ := item.(string)
			all = append(all, text)
		}
	}
	if len(all) == 0 || len(all) > 64 {
		d.fail(key, "is no list of addresses")
	}
	for _, address := range all {
		if address == "" || len(address) > maxValue || strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			d.fail(key, "has an item that is no address")
			return nil
		}
	}
	return all
}

func (d *decoder) gossipKey() Secret {
	key := d.secret(keyGossip, maxValue)
	if key == "" {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(string(key))
	if err != nil || !slices.Contains([]int{16, 24, 32}, len(raw)) {
		d.fail(keyGossip, "is not the base64 text of 16, 24 or 32 bytes (consul keygen makes one)")
	}
	return key
}

// systemCA in place of a PEM text stands for the certificates that the platform trusts.
const systemCA = "system"

// certificates checks a PEM text and gives it back without what else stands
// between the certificates.
func (d *decoder) certificates() string {
	value, given := d.values[keyCA]
	if !given || value == nil {
		return ""
	}
	text, ok := value.(string)
	switch {
	case !ok:
		d.fail(keyCA, "is no string")
		return ""
	case len(text) > maxCA:
		d.fail(keyCA, "has %d bytes, and at most %d make sense", len(text), maxCA)
		return ""
	case text == systemCA:
		trusted, err := readSystem(d.system)
		if err != nil {
			d.fail(keyCA, "is %q, and the certificates that the platform trusts cannot be read: %v", systemCA, err)
		}
		if !d.flag(keyServerName, true) {
			d.fail(keyServerName, "has to be true: the platform trusts the certificates of other containers too")
		}
		return trusted
	}
	bundle, err := bundle([]byte(text))
	if err != nil {
		d.fail(keyCA, "%v", err)
	}
	return bundle
}

func bundle(text []byte) (string, error) {
	var all []byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch {
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return "", errors.New("has a private key in it, which belongs to nobody but the CA")
		case block.Type != "CERTIFICATE":
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", errors.New("has a certificate that cannot be read")
		}
		if !certificate.IsCA {
			return "", errors.New("has a certificate that is not one of a CA")
		}
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(all) == 0 {
		return "", errors.New("has no PEM certificate in it")
	}
	return string(all), nil
}
