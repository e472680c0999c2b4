package artifact

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// proxyVariables are those that name a proxy, by the scheme of what is fetched, the
// first that is set (Go: http.ProxyFromEnvironment).
var proxyVariables = map[string][]string{"https": {"HTTPS_PROXY", "https_proxy"}, "http": {"HTTP_PROXY", "http_proxy"}}

// trimProxies takes blanks off the variables, for Go, git and all that it starts: an
// address with one is none.
func trimProxies() error {
	for _, names := range proxyVariables {
		for _, name := range names {
			value := os.Getenv(name)
			if trimmed := strings.TrimSpace(value); trimmed != value {
				if err := os.Setenv(name, trimmed); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// proxyVariable is the variable that names the proxy for an address, and whether it is
// set.
func proxyVariable(to *url.URL) (name string, set bool) {
	names := proxyVariables[to.Scheme]
	if names == nil {
		names = proxyVariables["https"]
	}
	for _, name := range names {
		if os.Getenv(name) != "" {
			return name, true
		}
	}
	return names[0], false
}

// proxyFor is the proxy that is asked for an address, nil where none is.
func proxyFor(to *url.URL) *url.URL {
	proxy, _ := http.ProxyFromEnvironment(&http.Request{URL: to}) // the transport says what is wrong with it
	return proxy
}

// proxyError is the refusal of a proxy, or of what may be behind it.
type proxyError struct {
	status   int
	proxy    *url.URL
	to       *url.URL
	variable string
	only     bool // nobody else can have said it
}

func newProxyError(status int, proxy, to *url.URL, only bool) *proxyError {
	name, _ := proxyVariable(to)
	return &proxyError{status, proxy, to, name, only}
}

func (e *proxyError) Error() string {
	or := ""
	if !e.only {
		or = ", or the server behind it,"
	}
	return strings.TrimSpace(fmt.Sprintf("the proxy %s of %s%s says %d %s", e.proxy.Host, e.variable, or, e.status, http.StatusText(e.status)))
}

// hint says what to do about it.
func (e *proxyError) hint() string {
	switch {
	case e.status == http.StatusProxyAuthRequired && e.proxy.User != nil:
		return "the proxy does not take the user and password in " + e.variable
	case e.status == http.StatusProxyAuthRequired:
		return e.variable + " needs the proxy's user and password: http://USER:PASSWORD@" + e.proxy.Host
	}
	return "the proxy has to let staging reach " + e.to.Host + "; NO_PROXY names what is reached without it"
}

// refusedTunnel makes an error of a proxy's answer to CONNECT that opens no tunnel.
func refusedTunnel(_ context.Context, proxy *url.URL, connect *http.Request, response *http.Response) error {
	if response.StatusCode == http.StatusOK {
		return nil
	}
	return newProxyError(response.StatusCode, proxy, &url.URL{Scheme: "https", Host: strings.TrimSuffix(connect.URL.Opaque, ":443")}, true)
}

// refusalOf makes an error of a server's answer that refuses. Where the request went to a
// proxy as it stands, that may be who refuses.
func refusalOf(request *http.Request, status int) error {
	proxy := proxyFor(request.URL)
	if proxy == nil || request.URL.Scheme != "http" {
		return statusError(status)
	}
	switch status {
	case http.StatusProxyAuthRequired:
		return newProxyError(status, proxy, request.URL, true)
	case http.StatusForbidden, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return newProxyError(status, proxy, request.URL, false)
	}
	return statusError(status)
}

// proxyHint says what a proxy has to do with an address that cannot be reached, or
// could have where none is asked.
func proxyHint(to *url.URL) string {
	name, set := proxyVariable(to)
	switch proxy := proxyFor(to); {
	case proxy != nil:
		return "by way of the proxy " + proxy.Host + " of " + name + "; where it cannot, use the cached buildpack"
	case set:
		return "without the proxy of " + name + ", as NO_PROXY says; where it cannot, use the cached buildpack"
	}
	return "itself; where it cannot, use the cached buildpack or set " + name
}
