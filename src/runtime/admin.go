package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// What Envoy's admin API is asked (Envoy: administration interface).

// adminLimit bounds an answer, in bytes: a listener of a large mesh has some
// hundred kilobytes.
const adminLimit = 16 << 20

// rejectedPatience is how long a configuration may stay rejected before the
// start gives up: it would not get better by waiting.
const rejectedPatience = 3 * time.Second

// ready returns nil while Envoy serves what Consul has told it.
func (e *envoy) ready(ctx context.Context) error {
	if err := e.alive(); err != nil {
		return err
	}
	text, err := e.get(ctx, "/ready")
	if err != nil {
		return err
	}
	if text != "LIVE" {
		return fmt.Errorf("envoy says %s", text)
	}
	return nil
}

// idle returns nil once no caller's request is in flight. Only protocols with
// requests can tell: a TCP connection may stay open for ever.
func (e *envoy) idle(ctx context.Context) error {
	if err := e.alive(); err != nil {
		return err
	}
	stats, err := e.stats(ctx, statRequests)
	if err != nil {
		return err
	}
	switch value, found := stats[statRequests]; {
	case !found && e.service.protocol != "": // otherwise Consul says which it is
		return &finalError{fmt.Errorf("envoy has no counter %s", statRequests)}
	case value > 0:
		return fmt.Errorf("%d requests in flight", value)
	}
	return nil
}

// flushed returns nil once nothing that an app which has ended said is left in
// Envoy, or in the container's kernel, which ends with it.
func (e *envoy) flushed(ctx context.Context) error {
	if err := e.alive(); err != nil {
		return err
	}
	stats, err := e.stats(ctx, statRequests, statUnsentHTTP, statUnsentTCP)
	if err != nil {
		return err
	}
	unsent := stats[statUnsentHTTP] + stats[statUnsentTCP] + queued(e.service.sidecar)
	if requests := stats[statRequests]; requests > 0 || unsent > 0 {
		return fmt.Errorf("%d requests in flight, and %d bytes of answers", requests, unsent)
	}
	return nil
}

// queued is what was sent from a TCP port of this container and has not been
// received yet, in bytes (proc_net_tcp in the kernel's documentation).
func queued(port int) int {
	all := 0
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file) // without IPv6 there is no second
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line) // number, local and remote address:port, state, sent:received, …
			if len(fields) < 5 || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			sent, _, _ := strings.Cut(fields[4], ":")
			n, _ := strconv.ParseInt(sent, 16, 64)
			all += int(n)
		}
	}
	return all
}

// What callers of this instance have in flight: their requests, of protocols
// that have some, and the bytes of answers.
const (
	statRequests   = "http.public_listener.downstream_rq_active"
	statUnsentHTTP = "http.public_listener.downstream_cx_tx_bytes_buffered"
	statUnsentTCP  = "tcp.public_listener.downstream_cx_tx_bytes_buffered"
)

// stats gives those counters of the named that Envoy has.
func (e *envoy) stats(ctx context.Context, names ...string) (map[string]int, error) {
	text, err := e.get(ctx, "/stats?filter="+url.QueryEscape("^("+strings.Join(names, "|")+")$"))
	if err != nil {
		return nil, err
	}
	stats := map[string]int{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}

func (e *envoy) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.admin+path, nil)
	if err != nil {
		return "", err
	}
	response, err := e.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, adminLimit))
	return strings.TrimSpace(string(text)), err
}

// Counters of Envoy's configuration from Consul (xDS).
const (
	statConnected         = "control_plane.connected_state"
	statClusters          = "cluster_manager.cds.update_success"
	statClustersRejected  = "cluster_manager.cds.update_rejected"
	statListeners         = "listener_manager.lds.update_success"
	statListenersRejected = "listener_manager.lds.update_rejected"
)

// countersAfter is how long Envoy is asked only whether it is ready, which it is
// when it has been told everything: to find counters it looks at all it has.
const countersAfter = time.Second

// configured returns a condition: Envoy has taken its clusters and listeners
// from Consul.
func (e *envoy) configured() func(context.Context) error {
	var rejectedSince time.Time
	begun := time.Now()
	return func(ctx context.Context) error {
		if err := e.alive(); err != nil {
			return err
		}
		if err := e.ready(ctx); err != nil && time.Since(begun) < countersAfter {
			return err
		}
		stats, err := e.stats(ctx, statConnected, statClusters, statClustersRejected, statListeners, statListenersRejected)
		if err != nil {
			return err
		}
		switch {
		case stats[statClustersRejected]+stats[statListenersRejected] > 0:
			err := fmt.Errorf("envoy rejects what Consul tells it: %w", e.rejected(ctx))
			if rejectedSince.IsZero() {
				rejectedSince = time.Now()
			}
			if time.Since(rejectedSince) > rejectedPatience {
				return &finalError{err}
			}
			return err
		case stats[statClusters] > 0 && stats[statListeners] > 0:
			return nil
		case stats[statConnected] == 0:
			return errors.New("envoy has no stream from Consul's gRPC port")
		}
		return errors.New("consul has not told Envoy what to do yet")
	}
}

// rejected is Envoy's own reason for not taking a configuration.
func (e *envoy) rejected(ctx context.Context) error {
	for _, resource := range []string{"dynamic_listeners", "dynamic_active_clusters"} {
		text, err := e.get(ctx, "/config_dump?resource="+resource)
		if err != nil {
			return err
		}
		var dump struct {
			Configs []struct {
				ErrorState struct {
					Details string `json:"details"`
				} `json:"error_state"`
			} `json:"configs"`
		}
		if err := json.Unmarshal([]byte(text), &dump); err != nil {
			return err
		}
		for _, config := range dump.Configs {
			if config.ErrorState.Details != "" {
				return errors.New(config.ErrorState.Details)
			}
		}
	}
	return errors.New("it does not say why")
}

// listeners are the names and addresses that Envoy listens on.
func (e *envoy) listeners(ctx context.Context) ([]string, error) {
	text, err := e.get(ctx, "/listeners")
	var all []string
	for line := range strings.Lines(text) {
		all = append(all, strings.TrimSpace(line))
	}
	return all, err
}

// clusters counts the healthy endpoints of every cluster that Envoy knows.
func (e *envoy) clusters(ctx context.Context) (map[string]int, error) {
	text, err := e.get(ctx, "/clusters?format=json")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Health struct {
					EDS     string `json:"eds_health_status"`
					Outlier bool   `json:"failed_outlier_check"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("failed to read Envoy's clusters: %w", err)
	}
	healthy := map[string]int{}
	for _, cluster := range answer.Clusters {
		healthy[cluster.Name] = 0
		for _, host := range cluster.Hosts {
			if host.Health.EDS == "HEALTHY" && !host.Health.Outlier {
				healthy[cluster.Name]++
			}
		}
	}
	return healthy, nil
}

// validity is from when and until when the sidecar's certificates are valid;
// zero without any.
func (e *envoy) validity(ctx context.Context) (from, until time.Time, err error) {
	text, err := e.get(ctx, "/certs")
	if err != nil {
		return from, until, err
	}
	var answer struct {
		Certificates []struct {
			Chain []struct {
				From  time.Time `json:"valid_from"`
				Until time.Time `json:"expiration_time"`
			} `json:"cert_chain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return from, until, fmt.Errorf("failed to read Envoy's certificates: %w", err)
	}
	// Envoy keeps an old one for the connections that have it: the newest counts.
	for _, certificate := range answer.Certificates {
		var start, end time.Time
		for _, link := range certificate.Chain {
			if link.From.After(start) {
				start = link.From
			}
			if end.IsZero() || link.Until.Before(end) {
				end = link.Until
			}
		}
		if start.After(from) {
			from, until = start, end
		}
	}
	return from, until, nil
}
