package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// AppReady returns nil once the app passes every check it declares, and
// listens where it declares none.
func (r *Registration) AppReady(ctx context.Context) error {
	if r.network != "" {
		listens, cancel := context.WithTimeout(ctx, wait.AttemptTimeout)
		defer cancel()
		if err := probeListener(listens, r.network, r.address); err != nil {
			return onIPv6(listens, r.address, err)
		}
	}
	var wrong []string
	for _, err := range probeAll(ctx, r.definition.Checks) {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// Listening returns nil while the app listens where it did. Of an app that was never
// seen to listen there, as one on another host, it is nil too. One at a time may ask.
func (r *Registration) Listening() error {
	if !r.ListenCheck || r.network == "" {
		return nil
	}
	if instance.Listens(r.network, r.address) {
		r.listened = true
	} else if r.listened {
		return fmt.Errorf("the app does not listen on %s any more", r.address)
	}
	return nil
}

// probeAll runs checks once, side by side, and says what is wrong with each.
func probeAll(ctx context.Context, checks []droplet.Check) []error {
	wrong := make([]error, len(checks))
	var group sync.WaitGroup
	for i, check := range checks {
		group.Go(func() {
			if err := probe(ctx, check); err != nil {
				wrong[i] = fmt.Errorf("check %q: %w", check.Name, err)
			}
		})
	}
	group.Wait()
	return wrong
}

// isProbed says that probe runs a check. Of others the agent is the only judge.
func isProbed(check droplet.Check) bool {
	return check.HTTP != "" || check.TCP != "" || check.GRPC != "" && !check.GRPCUseTLS
}

// probe runs a check once, as the agent will after it is registered, for as
// long as its timeout lets it.
func probe(ctx context.Context, check droplet.Check) error {
	if !isProbed(check) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, check.Timeout.Duration)
	defer cancel()
	switch {
	case check.HTTP != "":
		return probeHTTP(ctx, check)
	case check.TCP != "":
		return probeListener(ctx, "tcp", check.TCP)
	}
	server, service, _ := strings.Cut(check.GRPC, "/")
	return probeGRPC(ctx, server, service)
}

func probeListener(ctx context.Context, network, target string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, target)
	if err != nil {
		return err
	}
	return conn.Close()
}

// onIPv6 adds to an error that the app listens on IPv6's loopback, where it does: many
// runtimes take localhost for that.
func onIPv6(ctx context.Context, address string, err error) error {
	host, port, failed := net.SplitHostPort(address)
	if failed != nil || host != "127.0.0.1" || probeListener(ctx, "tcp", net.JoinHostPort("::1", port)) != nil {
		return err
	}
	return fmt.Errorf("the app listens on [::1]:%s alone, and its sidecar calls %s: say sidecar { local_service_address = \"::1\" } in mesh.hcl, or have the app listen on 127.0.0.1", port, address)
}

func probeHTTP(ctx context.Context, check droplet.Check) error {
	request, err := http.NewRequestWithContext(ctx, check.Method, check.HTTP, strings.NewReader(check.Body))
	if err != nil {
		return err
	}
	for name, values := range check.Header {
		for _, value := range values {
			request.Header.Add(name, value)
		}
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host // net/http sends no such header
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: check.TLSServerName, InsecureSkipVerify: check.TLSSkipVerify},
	}}
	if check.DisableRedirects {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusTooManyRequests {
		return nil // an agent warns then, and callers go on
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s answers %s", request.Method, check.HTTP, response.Status)
	}
	return nil
}

// probeGRPC asks the standard health service (grpc.health.v1.Health/Check).
// Its two messages have one field each, so they are written out here instead
// of linking a gRPC library that is larger than the whole program.
func probeGRPC(ctx context.Context, server, service string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+server+"/grpc.health.v1.Health/Check", bytes.NewReader(wait.GRPCFrame(wait.ProtoText(nil, 1, service))))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	response, err := grpcClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	if err != nil {
		return err
	}
	status := response.Trailer.Get("Grpc-Status")
	if status == "" {
		status = response.Header.Get("Grpc-Status")
	}
	const serving = 1 // HealthCheckResponse.ServingStatus, field 1, a varint
	switch {
	case status != "0":
		return fmt.Errorf("gRPC health of %s answers status %s", server, status)
	case len(body) < 7 || body[5] != 0x08 || body[6] != serving:
		return fmt.Errorf("gRPC health of %s is not serving", server)
	}
	return nil
}

// grpcClient speaks HTTP/2 without TLS.
var grpcClient = func() *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: &protocols}}
}()
