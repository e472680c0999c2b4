package install

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestZip: published by a platform team, downloads from its mirror.
func TestZip(t *testing.T) {
	app := frontend(t, mirrored(t), shared.Last)
	forget(t, app)
	droplet, err := stage(t, app)
	if err != nil {
		t.Fatal(err)
	}
	runs(t, app, droplet)
	testWeights(t, droplet)
}

// TestMirrorThatThePlatformTrusts: the mirror's certificate is of an authority that the
// platform's operator has put into containers, and no stack knows.
func TestMirrorThatThePlatformTrusts(t *testing.T) {
	buildpack := mirrored(t)
	app := frontend(t, buildpack, shared.Last)
	forget(t, app)
	certificate, key, err := shared.IssueIdentity(app, "mirror", shared.Outside(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(shared.Binaries.Mirror())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	listener, err := net.Listen("tcp", shared.Outside()+":0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.StartTLS()
	t.Cleanup(server.Close)
	manifest := filepath.Join(buildpack.Dir, "manifest.yml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.ReplaceAll(string(text), "http://"+shared.Outside(), server.URL)
	if err := os.WriteFile(manifest, []byte(moved), 0o644); err != nil {
		t.Fatal(err)
	}
	droplet, err := stage(t, app)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(droplet.Log, "from "+server.URL) {
		t.Errorf("it was not asked:\n%s", droplet.Log)
	}
	app.Name, app.Env = "untrusting", map[string]string{"CF_SYSTEM_CERT_PATH": ""}
	forget(t, app)
	fails(t, app, "certificate signed by unknown authority", "CF_SYSTEM_CERT_PATH")
}

// TestCachedZip stages where there is no network at all.
func TestCachedZip(t *testing.T) {
	app := frontend(t, unpacked(t, zipPath("-cached")), shared.Last)
	app.Isolated = true
	forget(t, app)
	droplet, err := stage(t, app)
	if err != nil {
		t.Fatal(err)
	}
	runs(t, app, droplet)
}

// TestZipWithoutNetwork: the zip as it is published says what it cannot reach.
func TestZipWithoutNetwork(t *testing.T) {
	buildpack := unpacked(t, zipPath(""))
	app := frontend(t, buildpack, shared.Last)
	app.Isolated = true
	forget(t, app)
	_, err := stage(t, app)
	if err == nil {
		t.Fatal("staged without a network")
	}
	for _, host := range []string{"releases.hashicorp.com", "github.com"} {
		if strings.Contains(err.Error(), "hint: staging must reach "+host) {
			return
		}
	}
	t.Errorf("the error names no host to reach:\n%v", err)
}

// TestPlaces: the first of two is where the other tests have it.
func TestPlaces(t *testing.T) {
	buildpack := mirrored(t)
	// others are buildpacks that supply nothing.
	others := func(count int) (all []cell.Buildpack) {
		for i := range count {
			all = append(all, cell.Buildpack{Name: fmt.Sprint("other", i), Dir: shared.Last.Dir})
		}
		return all
	}
	for name, buildpacks := range map[string][]cell.Buildpack{
		"alone":              {buildpack},
		"the last of two":    append(others(1), buildpack),
		"eleventh of twelve": append(append(others(10), buildpack), shared.Last),
	} {
		t.Run(name, func(t *testing.T) {
			app := frontend(t, buildpacks...)
			forget(t, app)
			droplet, err := stage(t, app)
			if err != nil {
				t.Fatal(err)
			}
			runs(t, app, droplet)
		})
	}
	t.Run("third of twelve", func(t *testing.T) {
		app := frontend(t, append(append(others(2), buildpack), append(others(10)[2:], shared.Last)...)...)
		forget(t, app)
		if len(app.Buildpacks) != 12 {
			t.Fatalf("there are %d buildpacks", len(app.Buildpacks))
		}
		fails(t, app, "the app would have no sidecars", "hint: name fewer than ten buildpacks")
	})
	t.Run("not named", func(t *testing.T) {
		app := frontend(t)
		forget(t, app)
		_, err := stage(t, app)
		var failed *cell.StagingError
		if !errors.As(err, &failed) || failed.Status.Code != 222 {
			t.Errorf("the buildpack did not decline: %v", err)
		}
	})
}

// testWeights: what docs/operators.md says of the droplet.
func testWeights(t *testing.T, droplet *cell.Droplet) {
	t.Helper()
	document := read(t, "docs/operators.md")
	for _, program := range []string{"consul", "envoy", "mesh"} {
		info, err := os.Stat(droplet.Dir + "/deps/0/bin/" + program)
		if err != nil {
			t.Fatal(err)
		}
		row := fmt.Sprintf("| `bin/%s` | ", program)
		_, rest, _ := strings.Cut(document, row)
		var said float64
		// Consul is HashiCorp's where their site can be reached, and otherwise built.
		if _, err := fmt.Sscanf(rest, "%f MB", &said); err != nil || math.Abs(said-float64(info.Size())/1e6) > max(0.5, said/20) {
			t.Errorf("docs/operators.md says %q%.0f MB, it has %d bytes", row, said, info.Size())
		}
	}
}
