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

	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// AppReady returns nil once the app passes every check it declares, and
// listens where it declares none.
func (r *Registration) AppReady(ctx context.Context) error {
	if r.network != "" {
		listens, cancel := context.WithTimeout(ctx, wait.AttemptTimeout)
		defer cancel()
		if err := probeListener(listens, r.network, r.address); err != nil {
			return err
		}
	}
	var wrong []string
	for _, err := range probeAll(ctx, r.checks) {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// probeAll runs checks once, side by side, and says what is wrong with each.
func probeAll(ctx context.Context, checks []map[string]any) []error {
	wrong := make([]error, len(checks))
	var group sync.WaitGroup
	for i, check := range checks {
		group.Go(func() {
			if err := probe(ctx, check); err != nil {
				wrong[i] = fmt.Errorf("check %q: %w", check["name"], err)
			}
		})
	}
	group.Wait()
	return wrong
}

// isProbed says that probe runs a check. Of others the agent is the only judge.
func isProbed(check map[string]any) bool {
	return check["http"] != nil || check["tcp"] != nil || check["grpc"] != nil && check["grpcusetls"] != true
}

// probe runs a check once, as the agent will after it is registered, for as
// long as its timeout lets it.
func probe(ctx context.Context, check map[string]any) error {
	if !isProbed(check) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, duration(check["timeout"]))
	defer cancel()
	if target, ok := check["http"].(string); ok {
		return probeHTTP(ctx, target, check)
	}
	if target, ok := check["tcp"].(string); ok {
		return probeListener(ctx, "tcp", target)
	}
	target, _ := check["grpc"].(string)
	server, service, _ := strings.Cut(target, "/")
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

func probeHTTP(ctx context.Context, target string, check map[string]any) error {
	method, _ := check["method"].(string)
	body, _ := check["body"].(string)
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range wait.Object(check["header"]) {
		list, _ := values.([]any)
		for _, value := range list {
			request.Header.Add(name, fmt.Sprint(value))
		}
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host // net/http sends no such header
	}
	serverName, _ := check["tlsservername"].(string)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: serverName, InsecureSkipVerify: check["tlsskipverify"] == true},
	}}
	if check["disableredirects"] == true {
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
		return fmt.Errorf("%s %s answers %s", request.Method, target, response.Status)
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
