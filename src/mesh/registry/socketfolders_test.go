package registry

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consul-mesh/mesh-buildpack/src/droplet"
)

// TestSocketFolders: the folder of an upstream's socket is there before Envoy listens in
// it, for those who may use the socket. One that is there stays as it is.
func TestSocketFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	upstream := func(name, mode string) *Registration {
		r := &Registration{}
		r.sidecar().Proxy.Upstreams = []droplet.Upstream{
			{DestinationName: "by-port", LocalBindPort: 9001},
			{DestinationName: "stock", LocalBindSocketPath: filepath.Join(dir, name), LocalBindSocketMode: mode},
		}
		return r
	}
	for name, test := range map[string]struct {
		mode string
		want fs.FileMode
	}{
		"own/deep/stock.sock": {"", 0o700},
		"group/stock.sock":    {"0660", 0o770},
		"all/stock.sock":      {"0666", 0o777},
		"stock.sock":          {"0600", 0o755}, // it was there
	} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := upstream(name, test.mode).MakeSocketFolders(); err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(filepath.Dir(filepath.Join(dir, name)))
		if err != nil || info.Mode().Perm() != test.want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := upstream("file/stock.sock", "").MakeSocketFolders(); err == nil || !strings.Contains(err.Error(), "the folder of the upstream stock's socket") {
		t.Errorf("below a file: %v", err)
	}
}
