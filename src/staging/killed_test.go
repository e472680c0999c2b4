package staging

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// large makes the programs large enough to be caught half-way.
func (f *foundation) large(size int) (consul, envoy []byte) {
	f.t.Helper()
	source := rand.NewChaCha8([32]byte{1})
	consul, envoy = make([]byte, size), make([]byte, size)
	source.Read(consul)
	source.Read(envoy)
	f.files["consul.zip"], f.files["envoy"] = zipped(f.t, "consul", string(consul)), envoy
	f.manifest(map[string]string{defaultConsul: "consul.zip", defaultEnvoy: "envoy"})
	return consul, envoy
}

func (f *foundation) hasPrograms(deps string, consul, envoy []byte) {
	f.t.Helper()
	for name, want := range map[string][]byte{"consul": consul, "envoy": envoy} {
		got, err := os.ReadFile(filepath.Join(deps, "0/bin", name))
		if err != nil || !bytes.Equal(got, want) {
			f.t.Fatalf("%s has %d bytes and not the %d that were served: %v", name, len(got), len(want), err)
		}
	}
}

func leftovers(t *testing.T, cache string) (found []string) {
	t.Helper()
	for _, file := range tree(t, cache) {
		if strings.Contains(file, ".fetch-") {
			found = append(found, file)
		}
	}
	return found
}

// TestKilledStagings: the next staging is right, whenever the last one was
// killed, and clears away what that left.
func TestKilledStagings(t *testing.T) {
	f := newFoundation(t)
	consul, envoy := f.large(4 << 20)
	started := time.Now()
	cmd, out := f.process(f.newDeps())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole := time.Since(started)
	download := time.Since(<-f.asked)

	killed, halfWay := 0, 0
	for round := range 50 {
		// Every second one finds what another killed staging left.
		if round%2 == 0 {
			if err := os.RemoveAll(filepath.Join(f.cache, "mesh")); err != nil {
				t.Fatal(err)
			}
		}
		cmd, _ := f.process(f.newDeps())
		select {
		case <-f.asked: // by the one before
		default:
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From its start, or from its first request where there must be one.
		if round%2 == 0 {
			<-f.asked
			time.Sleep(rand.N(download))
		} else {
			time.Sleep(rand.N(whole))
		}
		_ = cmd.Process.Kill() // it may have ended
		if cmd.Wait() != nil {
			killed++
		}
		if len(leftovers(t, f.cache)) > 0 {
			halfWay++
		}
		if round%4 == 0 {
			continue // the next one is killed on top of this one
		}
		deps := f.newDeps()
		again, out := f.process(deps)
		if err := again.Run(); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		f.hasPrograms(deps, consul, envoy)
		if left := leftovers(t, f.cache); len(left) > 0 {
			t.Fatalf("round %d: the cache has %q", round, left)
		}
	}
	t.Logf("of 50 stagings %d were killed, %d with a download half-way", killed, halfWay)
	if killed < 10 || halfWay < 5 {
		t.Errorf("only %d were killed, and %d half-way: too few to say anything", killed, halfWay)
	}
}

// TestTwoStagingsAtOnce: on one cache, from nothing, and beside a third that
// is killed.
func TestTwoStagingsAtOnce(t *testing.T) {
	f := newFoundation(t)
	consul, envoy := f.large(4 << 20)
	f.newDeps()
	for round := range 5 {
		if err := os.RemoveAll(filepath.Join(f.cache, "mesh")); err != nil {
			t.Fatal(err)
		}
		var running sync.WaitGroup
		deps := []string{f.newDeps(), f.newDeps(), f.newDeps()}
		for i, dir := range deps {
			cmd, out := f.process(dir)
			// Each has an app of its own, as each has a container of its own.
			cmd.Args[2] = t.TempDir()
			f.write(cmd.Args[2], "mesh.hcl", `service "web" {}`)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			running.Go(func() {
				if i == 2 {
					time.Sleep(time.Duration(round) * 10 * time.Millisecond)
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
					return
				}
				if err := cmd.Wait(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		running.Wait()
		if t.Failed() {
			return
		}
		for _, dir := range deps[:2] {
			f.hasPrograms(dir, consul, envoy)
		}
	}
}
