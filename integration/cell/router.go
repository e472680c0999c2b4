package cell

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// router sends requests to instances as the platform's does: by host name, to
// routable instances in turn, to another one when one cannot be reached.
type router struct {
	cell      *Cell
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	turn      atomic.Uint64
}

var (
	errUnknownRoute = errors.New("unknown_route")
	errNoEndpoints  = errors.New("no_endpoints")
)

func newRouter(c *Cell) *router {
	// Addresses are used again, so a connection must not outlive its request.
	r := &router{cell: c, transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}
	r.proxy = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme = "http"
			p.Out.URL.Host = p.In.Host // replaced by an instance's
			p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
			p.SetXForwarded()
			p.Out.Host = p.In.Host
		},
		Transport:    r,
		ErrorHandler: refuse,
	}
	return r
}

// Router routes requests by Host ("NAME", "NAME.localhost", with or without a
// port, for every NAME of App.Routes) to port 8080 of routable instances.
func (c *Cell) Router() http.Handler { return c.router.proxy }

// ServeRouter serves the router until l is closed or the cell is.
func (c *Cell) ServeRouter(l net.Listener) error {
	server := &http.Server{Handler: c.Router(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	case <-c.closing:
		return server.Close()
	}
}

// RoundTrip tries up to three instances.
func (r *router) RoundTrip(req *http.Request) (*http.Response, error) {
	endpoints, err := r.cell.endpoints(req.Host)
	if err != nil {
		return nil, err
	}
	body := req.Body
	if body != nil {
		defer body.Close()
		req.Body = io.NopCloser(body) // the next instance needs it too
	}
	first := r.turn.Add(1)
	for attempt := range uint64(3) {
		endpoint := endpoints[(first+attempt)%uint64(len(endpoints))]
		req.URL.Host = net.JoinHostPort(endpoint, appPort)
		var response *http.Response
		response, err = r.transport.RoundTrip(req)
		var dial *net.OpError
		if err == nil || !errors.As(err, &dial) || dial.Op != "dial" {
			return response, err
		}
	}
	return nil, err
}

// endpoints are the addresses of the routable instances behind a host name.
func (c *Cell) endpoints(host string) (addresses []string, err error) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".localhost")
	err = errUnknownRoute
	for _, r := range c.apps() {
		if !slices.Contains(r.routes(), host) {
			continue
		}
		err = errNoEndpoints
		for _, i := range r.routable() {
			addresses = append(addresses, i.Address())
		}
	}
	if len(addresses) > 0 {
		err = nil
	}
	return addresses, err
}

// refuse answers as the platform's router does.
func refuse(w http.ResponseWriter, _ *http.Request, err error) {
	reason, code := "endpoint_failure", http.StatusBadGateway
	switch {
	case errors.Is(err, errUnknownRoute):
		reason, code = "unknown_route", http.StatusNotFound
	case errors.Is(err, errNoEndpoints):
		reason, code = "no_endpoints", http.StatusServiceUnavailable
	}
	w.Header().Set("X-Cf-RouterError", reason)
	http.Error(w, http.StatusText(code)+": "+err.Error(), code)
}
