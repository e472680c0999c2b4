package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/wait"
)

// What Envoy's admin API is asked (Envoy: administration interface).

// adminLimit bounds an answer, in bytes: a listener of a large mesh has some
// hundred kilobytes.
const adminLimit = 16 << 20

// Ready returns nil while Envoy serves what Consul has told it.
func (e *Envoy) Ready(ctx context.Context) error {
	if err := e.Runs(); err != nil {
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

// Idle returns nil once no caller's request is in flight, and none has come for a
// while. Only protocols with requests can tell: a TCP connection may stay open for
// ever. One at a time may ask.
func (e *Envoy) Idle(ctx context.Context) error {
	if err := e.Runs(); err != nil {
		return err
	}
	stats, err := e.stats(ctx, statRequests, statAllRequests)
	if err != nil {
		return err
	}
	if all := stats[statAllRequests]; all != e.requests || e.lastRequest.IsZero() {
		e.requests, e.lastRequest = all, time.Now()
	}
	switch value, found := stats[statRequests]; {
	case !found && e.Protocol != "": // otherwise Consul says which it is
		return wait.Final(fmt.Errorf("envoy has no counter %s", statRequests))
	case value > 0:
		return fmt.Errorf("%d requests in flight", value)
	case found && time.Since(e.lastRequest) < instance.QuietFor:
		return errors.New("callers still send requests")
	}
	return nil
}

// Flushed returns nil once nothing that an app which has ended said is left in
// Envoy, or in the container's kernel, which ends with it.
func (e *Envoy) Flushed(ctx context.Context) error {
	if err := e.Runs(); err != nil {
		return err
	}
	stats, err := e.stats(ctx, statRequests, statUnsentHTTP, statUnsentTCP)
	if err != nil {
		return err
	}
	unsent := stats[statUnsentHTTP] + stats[statUnsentTCP] + instance.Unreceived(e.Port)
	if requests := stats[statRequests]; requests > 0 || unsent > 0 {
		return fmt.Errorf("%d requests in flight, and %d bytes of answers", requests, unsent)
	}
	return nil
}

// What callers of this instance have in flight: their requests, of protocols
// that have some, and the bytes of answers; and what they have sent in all.
const (
	statRequests    = "http.public_listener.downstream_rq_active"
	statAllRequests = "http.public_listener.downstream_rq_total"
	statUnsentHTTP  = "http.public_listener.downstream_cx_tx_bytes_buffered"
	statUnsentTCP   = "tcp.public_listener.downstream_cx_tx_bytes_buffered"
)

// stats gives those counters of the named that Envoy has.
func (e *Envoy) stats(ctx context.Context, names ...string) (map[string]int, error) {
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

func (e *Envoy) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Admin+path, nil)
	if err != nil {
		return "", err
	}
	response, err := e.HTTP.Do(request)
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

// Configured returns a condition: Envoy has taken its clusters and listeners
// from Consul.
func (e *Envoy) Configured() func(context.Context) error {
	var rejectedSince time.Time
	begun := time.Now()
	// What stays so for a while, waiting does not mend.
	patient := func(patience time.Duration, err error) error {
		if rejectedSince.IsZero() {
			rejectedSince = time.Now()
		}
		if time.Since(rejectedSince) > patience {
			return wait.Final(err)
		}
		return err
	}
	return func(ctx context.Context) error {
		if err := e.Runs(); err != nil {
			return err
		}
		if err := e.Ready(ctx); err != nil && time.Since(begun) < instance.CountersAfter {
			return err
		}
		stats, err := e.stats(ctx, statConnected, statClusters, statClustersRejected, statListeners, statListenersRejected)
		if err != nil {
			return err
		}
		switch {
		case stats[statClustersRejected]+stats[statListenersRejected] > 0:
			return patient(instance.RejectedPatience, fmt.Errorf("envoy rejects what Consul tells it: %w", e.rejected(ctx)))
		case stats[statClusters] > 0 && stats[statListeners] > 0:
			return nil
		case stats[statConnected] == 0:
			const none = "envoy has no stream from Consul's gRPC port"
			switch said, refused := lastClosed(e.warnings()); {
			case refused:
				return patient(instance.RefusedPatience, fmt.Errorf("%s: %s", none, said))
			case said != "":
				return fmt.Errorf("%s: %s", none, said)
			}
			return errors.New(none)
		}
		rejectedSince = time.Time{}
		return errors.New("consul has not told Envoy what to do yet")
	}
}

// listeners are the names and addresses that Envoy listens on.
func (e *Envoy) listeners(ctx context.Context) ([]string, error) {
	text, err := e.get(ctx, "/listeners")
	var all []string
	for line := range strings.Lines(text) {
		all = append(all, strings.TrimSpace(line))
	}
	return all, err
}

// clusters counts the healthy endpoints of every cluster that Envoy knows.
func (e *Envoy) clusters(ctx context.Context) (map[string]int, error) {
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
func (e *Envoy) validity(ctx context.Context) (from, until time.Time, err error) {
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

// EnvoyStatus is how the Envoy of a service is.
type EnvoyStatus struct {
	Ready            bool           `json:"ready"`
	Seen             string         `json:"seen,omitempty"`         // why it is not
	EarlyStream      bool           `json:"early_stream,omitempty"` // one was begun before it came
	CertificateFrom  *time.Time     `json:"certificate_from,omitempty"`
	CertificateUntil *time.Time     `json:"certificate_until,omitempty"`
	Listeners        []string       `json:"listeners,omitempty"` // name::address
	Clusters         map[string]int `json:"clusters,omitempty"`  // to how many healthy endpoints
}

// Status is how it is.
func (e *Envoy) Status(ctx context.Context) EnvoyStatus {
	var s EnvoyStatus
	err := e.Ready(ctx)
	s.Ready = err == nil
	from, until, certErr := e.validity(ctx)
	if certErr == nil && !until.IsZero() {
		s.CertificateFrom, s.CertificateUntil = &from, &until
	}
	listeners, listenersErr := e.listeners(ctx)
	s.Listeners = listeners
	clusters, clustersErr := e.clusters(ctx)
	s.Clusters = clusters
	for _, err := range []error{err, certErr, listenersErr, clustersErr} {
		if err != nil {
			s.Seen = err.Error()
			break
		}
	}
	return s
}
