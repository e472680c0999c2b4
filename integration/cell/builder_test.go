package cell_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// TestAnotherLifecycle: a builder that packs, as Cloud Foundry's does, and another
// launcher take the place of the cell's. They say how they are called; what they do
// is done by the cell's own, which know no more than the platform's flags here.
func TestAnotherLifecycle(t *testing.T) {
	programs := files{
		"builder": `#!/bin/bash
echo called "$*"
/tmp/lifecycle/lifecycle builder "$@" || exit
ls /tmp/packed
`,
		"launcher": `#!/bin/bash
echo launched by another
exec /tmp/lifecycle/lifecycle launcher "$@"
`,
	}.write(t)
	t.Setenv("CELL_BUILDER", filepath.Join(programs, "builder"))
	t.Setenv("CELL_LAUNCHER", filepath.Join(programs, "launcher"))
	c := newCell(t, cell.Options{})
	a := app(t, "app", files{"link": ""})
	must(t, os.Remove(filepath.Join(a.Dir, "link")))
	must(t, os.Symlink("helper", filepath.Join(a.Dir, "link")))
	a.Buildpacks = append([]cell.Buildpack{withSidecars(t)}, a.Buildpacks...)
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	const flags = "-buildDir=/tmp/app -buildpacksDir=/tmp/buildpacks -buildpacksDownloadDir=/tmp/buildpackdownloads" +
		" -buildpackOrder=sidecars,plain -skipDetect=true -buildArtifactsCacheDir=/tmp/cache" +
		" -outputMetadata=/tmp/result.json -outputDroplet=/tmp/packed/droplet -outputBuildArtifactsCache=/tmp/packed/cache"
	if !strings.Contains(d.Log, "called "+flags+"\n") || !strings.HasSuffix(d.Log, "\ncache\ndroplet\n") {
		t.Errorf("got %s", d.Log)
	}
	want := []cell.BuildpackMetadata{{Key: "sidecars"}, {Key: "plain"}}
	if diff := cmp.Diff(want, d.Result.Buildpacks); diff != "" || d.ProcessTypes["web"] != "./helper" || len(d.Sidecars) != 3 {
		t.Errorf("got %v %v: %s", d.ProcessTypes, d.Sidecars, diff)
	}
	r, err := c.Start(timeout(t), a, d)
	must(t, err)
	must(t, r.WaitRunning(timeout(t)))
	for _, label := range []string{"APP/PROC/WEB/0", "APP/PROC/WEB/SIDECAR/ONE/0"} {
		until(t, label+" is launched by the other launcher", func() bool {
			return slices.ContainsFunc(r.Logs(), func(l cell.Line) bool { return l.Label == label && l.Text == "launched by another" })
		})
	}
	if got := ssh(t, r.Instance(0), "cd; readlink app/link; find . ! -user vcap"); got != "helper" {
		t.Errorf("the link leads to, and others than vcap own: %s", got)
	}
}

// A packed cache is kept when the staging has come to its end, not before.
func TestAnotherBuilderThatFailsLeavesTheCache(t *testing.T) {
	c := newCell(t, cell.Options{Builder: os.Getenv("CELL_LIFECYCLE")})
	a := app(t, "app", nil)
	a.Buildpacks = append([]cell.Buildpack{recorder(t, "first", nil)}, a.Buildpacks...)
	_, err := c.Stage(timeout(t), a)
	must(t, err)
	kept := names(t, c.CacheDir("app"))
	a.Buildpacks = []cell.Buildpack{recorder(t, "second", nil), buildpack(t, "fails", files{"bin/finalize": "#!/bin/bash\nexit 1\n"})}
	_, err = c.Stage(timeout(t), a)
	var failed *cell.StagingError
	if !errors.As(err, &failed) || failed.Status.Code != 223 {
		t.Errorf("got %v", err)
	}
	if got := names(t, c.CacheDir("app")); len(got) != 2 || !slices.Equal(got, kept) {
		t.Errorf("the cache has %q, had %q", got, kept)
	}
}
