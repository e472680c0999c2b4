package proxy

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/mesh/consul"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/envoy"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/instance"
	"github.com/consul-mesh/mesh-buildpack/src/mesh/registry"
)

// TestJournal: what Consul and Envoy print passes through whole, and the
// warnings and errors are kept, with the lines that continue them.
func TestJournal(t *testing.T) {
	t.Parallel()
	inst := instance.Instance{RunDir: t.TempDir()}
	var passed strings.Builder
	j, err := inst.NewJournal(instance.ConsulJournal, &passed)
	if err != nil {
		t.Fatal(err)
	}
	const text = `2026 [INFO]  agent: starting
2026 [WARN]  agent: Join cluster failed, will retry: cluster=LAN retry_interval=1s
  error=
  | 1 error occurred:
  | 	* Failed to join 10.255.0.1:8301: Member 'server-0' part of wrong datacenter 'cf'
  | 
  | 
  
2026 [INFO]  agent: trying again
[warning][config] gRPC config stream to local_agent closed: 3, Envoy 1.1.0 is too old and is not supported by Consul
`
	for piece := range strings.SplitAfterSeq(text, "a") {
		if _, err := j.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if passed.String() != text {
		t.Errorf("passed on: %q", passed.String())
	}
	lines := inst.JournalOf(instance.ConsulJournal)
	if len(lines) != 5 || strings.Contains(strings.Join(lines, ""), "INFO") {
		t.Errorf("kept: %q", lines)
	}
	if got := registry.LastJoinError(lines); got != "Failed to join 10.255.0.1:8301: Member 'server-0' part of wrong datacenter 'cf'" {
		t.Errorf("the last error of a join is %q", got)
	}
	if got := registry.KnownProblem(lines); !strings.HasPrefix(got, "Envoy is too old") {
		t.Errorf("the last one means: %q", got)
	}
	if got := registry.KnownProblem(lines[:4]); !strings.HasPrefix(got, "the servers are of another datacenter") {
		t.Errorf("the first one means: %q", got)
	}
	refused := "service/register: 403: Permission denied: token with AccessorID 'f00' lacks permission 'mesh:write'"
	if got := registry.KnownProblem(append(lines, refused)); !strings.Contains(got, "meshctl acl prints the rule") {
		t.Errorf("a registration that is refused means: %q", got)
	}
	for range 2000 {
		if _, err := j.Write([]byte("[WARN] " + strings.Repeat("x", 50) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(j.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 2*instance.JournalLimit || info.Mode().Perm() != 0o600 {
		t.Errorf("the journal has %d bytes, mode %v", info.Size(), info.Mode())
	}
}

func TestClockProblem(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	until := from.Add(72 * time.Hour)
	certified := envoy.EnvoyStatus{CertificateFrom: &from, CertificateUntil: &until}
	for _, test := range []struct {
		status envoy.EnvoyStatus
		now    time.Time
		want   string
	}{
		{envoy.EnvoyStatus{}, from, ""},
		{certified, from, ""},
		{certified, until, ""},
		{certified, from.Add(-time.Second), "valid from 2026-11-21T12:00:00Z and it is 2026-11-21T11:59:59Z: the clock of the servers is ahead"},
		{certified, until.Add(time.Second), "has ended on 2026-11-24T12:00:00Z"},
	} {
		if got := clockProblem(test.status, test.now); (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
			t.Errorf("at %v: %q, want %q", test.now, got, test.want)
		}
	}
}

// TestAutoJoinIsNotSaid: how cloud auto-join finds servers may have keys in it.
func TestAutoJoinIsNotSaid(t *testing.T) {
	t.Parallel()
	const join = `access_key_id=s3cr3t provider=aws tag_key=consul secret_access_key="s3cr3t=="`
	var out bytes.Buffer
	inst := instance.Instance{RunDir: t.TempDir()}
	j, err := inst.NewJournal(instance.ConsulJournal, &out)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("[ERROR] agent: Cannot discover address: cluster=LAN address=%q error=timeout\n[WARN] agent: %s\n", join, join)
	if n, err := j.Write([]byte(line)); n != len(line) || err != nil {
		t.Fatal(n, err)
	}
	_, alone := consul.Resolve(t.Context(), []string{join})
	_, beside := consul.Resolve(t.Context(), []string{join, "consul.invalid"})
	for _, text := range []string{out.String(), strings.Join(inst.JournalOf(instance.ConsulJournal), "\n"), alone.Error(), beside.Error()} {
		if strings.Contains(text, "s3cr3t") || text == "" {
			t.Errorf("it says %q", text)
		}
	}
	if !strings.Contains(out.String(), "error=timeout") || !strings.Contains(beside.Error(), "consul.invalid") {
		t.Errorf("it lacks the rest: %q, %q", out.String(), beside)
	}
	hosts, err := consul.Resolve(t.Context(), []string{join, "127.0.0.1:8301", "[::1]:8301", "[::1]"})
	if err != nil || len(hosts) != 3 {
		t.Errorf("the others give %v, %v", hosts, err)
	}
}
