package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/binaries"
	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// supplyRuns is how often supply and its floor are measured, by turns.
const supplyRuns = 10

// supplied is what supply takes, medians in seconds, and what the least takes
// that gives the same programs. What supply itself takes at most of memory is
// in MB.
type supplied struct {
	uncached, uncachedFloor, cached, cachedFloor, memory float64
}

// supply measures what staging costs the platform.
func supply(ctx context.Context, b *bench) ([]result, error) {
	work, err := b.f.Dir("supply")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	s, err := measureSupply(ctx, b.f.Binaries, work)
	return []result{
		result{Name: "supply-uncached", Unit: "s", Ours: s.uncached}.against(nil, &s.uncachedFloor).aimedAt(goal{ofFloor: 1.15}),
		result{Name: "supply-cached", Unit: "s", Ours: s.cached}.against(nil, &s.cachedFloor).aimedAt(goal{ofFloor: 1.1}),
		result{Name: "supply-memory", Unit: "MB", Ours: s.memory}.aimedAt(goal{atMost: 64}),
	}, err
}

// measureSupply runs the staging program on its own, as bin/supply does, with
// the programs on a local server: with an empty build cache, beside curl,
// sha256sum and unzip one after the other, and with a warm one, beside cp.
func measureSupply(ctx context.Context, set binaries.Set, work string) (s supplied, err error) {
	b := &supplyBench{set: set, work: work}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return s, err
	}
	defer listener.Close()
	go http.Serve(listener, set.Mirror())
	b.mirror = "http://" + listener.Addr().String()
	if err := set.CopyBuildpack(b.dir("buildpack"), b.mirror); err != nil {
		return s, err
	}
	uncachedFloor, err := b.floor()
	if err != nil {
		return s, err
	}
	cachedFloor := fmt.Sprintf("cp %q out/consul && cp %q out/envoy", set.Consul(), set.Envoy())
	var times [4][]float64
	for range supplyRuns {
		for i, way := range []func() error{
			func() error { return errors.Join(os.RemoveAll(b.dir("cache")), b.supply(ctx, &s.memory)) },
			func() error { return b.shell(ctx, uncachedFloor) },
			func() error { return b.supply(ctx, &s.memory) },
			func() error { return b.shell(ctx, cachedFloor) },
		} {
			if err := b.fresh(); err != nil {
				return s, err
			}
			begun := time.Now()
			if err := way(); err != nil {
				return s, err
			}
			times[i] = append(times[i], time.Since(begun).Seconds())
		}
	}
	for i, median := range []*float64{&s.uncached, &s.uncachedFloor, &s.cached, &s.cachedFloor} {
		slices.Sort(times[i])
		*median = (times[i][supplyRuns/2-1] + times[i][supplyRuns/2]) / 2
	}
	return s, nil
}

type supplyBench struct {
	set          binaries.Set
	work, mirror string
}

func (b *supplyBench) dir(name string) string { return filepath.Join(b.work, name) }

// fresh makes what a staging finds: an app, and no droplet yet.
func (b *supplyBench) fresh() error {
	for _, dir := range []string{"app", "deps", "out"} {
		if err := os.RemoveAll(b.dir(dir)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"app", "deps/0", "out"} {
		if err := os.MkdirAll(b.dir(dir), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(b.dir("app/mesh.hcl"), []byte(`service "web" {}`), 0o644)
}

// supply runs the staging program. The kernel's own ru_maxrss begins with that
// of the process that starts another, so the peak is read while it runs.
func (b *supplyBench) supply(ctx context.Context, peak *float64) error {
	cmd := exec.CommandContext(ctx, b.dir("buildpack/build/buildpack"), "supply", b.dir("app"), b.dir("cache"), b.dir("deps"), "0")
	cmd.Env = []string{"CF_STACK=cflinuxfs4", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case err := <-ended:
			tick.Stop()
			if err != nil {
				return fmt.Errorf("supply failed: %w\n%s", err, out.String())
			}
			return nil
		case <-tick.C:
			*peak = max(*peak, residentPeak(cmd.Process.Pid))
		}
	}
}

func residentPeak(pid int) float64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has ended
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "VmHWM:"); found {
			kb, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(text, "kB")))
			return float64(kb) / 1024
		}
	}
	return 0
}

// floor is the script that gets the same programs with the usual tools.
func (b *supplyBench) floor() (string, error) {
	for _, tool := range []string{"curl", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("the floor needs %s: %w", tool, err)
		}
	}
	unzip := "unzip -q consul.zip consul -d ."
	if _, err := exec.LookPath("unzip"); err != nil {
		fmt.Println("supply: there is no unzip, the floor unpacks with python3 -m zipfile")
		unzip = "python3 -m zipfile -e consul.zip . && chmod +x consul"
	}
	script := "set -e; cd out\n"
	var sums string
	for name, file := range map[string]string{"consul.zip": b.set.ConsulZip(), "envoy": b.set.Envoy()} {
		sum, err := artifact.Sum(file)
		if err != nil {
			return "", err
		}
		script += fmt.Sprintf("curl -fsS --noproxy '*' -o %s %s/%s\n", name, b.mirror, filepath.Base(file))
		sums += sum + "  " + name + "\n"
	}
	return script + "sha256sum --quiet -c - <<'END'\n" + sums + "END\n" + unzip + "\nchmod +x envoy; rm consul.zip", nil
}

func (b *supplyBench) shell(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = b.work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the floor failed: %w\n%s", err, out)
	}
	return nil
}
