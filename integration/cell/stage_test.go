package cell_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
)

// recorder is a buildpack that says how it was called.
func recorder(t *testing.T, name string, f files) cell.Buildpack {
	all := files{"bin/supply": `#!/bin/bash
echo "` + name + ` supply $*"
echo "cached before: $(cat $2/mark 2>/dev/null)"
echo "` + name + `" > $2/mark
`}
	for k, v := range f {
		all[k] = v
	}
	return buildpack(t, name, all)
}

// TestStagingOrderAndCache is about the cell's builder and about one that packs.
func TestStagingOrderAndCache(t *testing.T) {
	for name, o := range map[string]cell.Options{"own": {}, "packing": {Builder: os.Getenv("CELL_LIFECYCLE")}} {
		t.Run(name, func(t *testing.T) { stagingOrderAndCache(t, newCell(t, o)) })
	}
}

// Which hash of the key names a buildpack's cache is the builder's business, and
// where it makes the droplet.
var (
	cacheName    = regexp.MustCompile("[0-9a-f]{16,32}")
	contentsName = regexp.MustCompile("/tmp/contents[0-9]*")
)

func stagingOrderAndCache(t *testing.T, c *cell.Cell) {
	first := recorder(t, "first", nil)
	last := recorder(t, "last", files{
		"bin/finalize": `#!/bin/bash
echo last finalize $*
env | grep -E '^(CF_STACK|MEMORY_LIMIT|MINE)='
pwd; whoami
mkdir $1/made
echo 'name: last' > $3/$4/config.yml
`,
		"bin/release": "#!/bin/bash\necho 'default_process_types: {web: from release}'\n",
	})
	a := cell.App{
		Name: "app", Dir: files{"Procfile": "worker: w\n", ".git/config": ""}.write(t),
		Buildpacks: []cell.Buildpack{first, last}, Env: map[string]string{"MINE": "1"},
	}
	d, err := c.Stage(timeout(t), a)
	must(t, err)
	log := contentsName.ReplaceAllString(cacheName.ReplaceAllString(d.Log, "HASH"), "/contents")
	for _, want := range []string{
		"first supply /tmp/app /tmp/cache/HASH /contents/deps 0\n",
		"last supply /tmp/app /tmp/cache/final /contents/deps 1\n",
		"last finalize /tmp/app /tmp/cache/final /contents/deps 1 /contents/profile.d\n",
		"CF_STACK=cflinuxfs4\n", "MEMORY_LIMIT=1024m\n", "MINE=1\n", "/home/vcap\nvcap\n", "cached before: \n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, d.Log)
		}
	}
	if diff := cmp.Diff(map[string]string{"web": "from release", "worker": "w"}, d.ProcessTypes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]cell.BuildpackMetadata{{Key: "first"}, {Key: "last", Name: "last"}}, d.Result.Buildpacks); diff != "" {
		t.Error(diff)
	}
	if got, want := names(t, d.Dir), []string{"app", "deps", "logs", "profile.d", "staging_info.yml", "tmp"}; !slices.Equal(got, want) {
		t.Errorf("the droplet has %q, want %q", got, want)
	}
	if got, want := names(t, filepath.Join(d.Dir, "app")), []string{"Procfile", "made"}; !slices.Equal(got, want) {
		t.Errorf("the app has %q, want %q", got, want)
	}
	before := names(t, c.CacheDir("app"))
	d, err = c.Stage(timeout(t), a)
	must(t, err)
	if !strings.Contains(d.Log, "cached before: first\n") || !strings.Contains(d.Log, "cached before: last\n") {
		t.Errorf("the cache was not kept:\n%s", d.Log)
	}
	a.Buildpacks[0].Name = "renamed"
	_, err = c.Stage(timeout(t), a)
	must(t, err)
	after := names(t, c.CacheDir("app"))
	if len(before) != 2 || len(after) != 2 || after[0] == before[0] || after[1] != "final" {
		t.Errorf("the cache has %q, had %q", after, before)
	}
}

func names(t *testing.T, dir string) (all []string) {
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

const launch = `#!/bin/bash
cat > $3/$4/launch.yml <<EOF
processes:
- {type: web, command: from launch.yml}
- {type: clock, command: tick}
- {type: side, command: 'run "it"', limits: {memory: 64}, platforms: {cloudfoundry: {sidecar_for: [web, clock]}}}
EOF
`

func TestLaunchYML(t *testing.T) {
	c := newCell(t, cell.Options{})
	supply := buildpack(t, "supply", files{"bin/supply": launch})
	last := buildpack(t, "last", files{
		"nested/bin/finalize": "#!/bin/bash\necho 'processes: [{type: clock, command: tock}]' > $3/$4/launch.yml\n",
		"nested/bin/release":  "#!/bin/bash\necho release was called >&2; exit 1\n",
	})
	d, err := c.Stage(timeout(t), cell.App{Name: "app", Dir: files{"Procfile": "web: procfile"}.write(t), Buildpacks: []cell.Buildpack{supply, last}})
	must(t, err)
	want := cell.Result{
		ProcessTypes: map[string]string{"web": "procfile", "clock": "tock"},
		Sidecars:     []cell.Sidecar{{Name: "side", Command: `run "it"`, ProcessTypes: []string{"web", "clock"}, Memory: 64}},
		Buildpacks:   d.Result.Buildpacks,
	}
	if diff := cmp.Diff(want, d.Result); diff != "" {
		t.Error(diff)
	}
}

func TestTenBuildpacksLoseTheirLaunchYML(t *testing.T) {
	c := newCell(t, cell.Options{})
	var buildpacks []cell.Buildpack
	for i := range 9 {
		buildpacks = append(buildpacks, buildpack(t, fmt.Sprint("b", i), files{"bin/supply": "#!/bin/bash\necho index $4\n"}))
	}
	buildpacks[3].Dir = files{"bin/supply": launch + "echo index $4\n"}.write(t)
	d, err := c.Stage(timeout(t), cell.App{Name: "app", Dir: files{}.write(t), Buildpacks: append(buildpacks, plain(t))})
	must(t, err)
	if !strings.Contains(d.Log, "index 03\n") || len(d.Sidecars) != 0 {
		t.Errorf("sidecars %v after\n%s", d.Sidecars, d.Log)
	}
}

func TestFailedStaging(t *testing.T) {
	ok, bad := "#!/bin/bash\n", "#!/bin/bash\necho why it failed >&2; exit 1\n"
	supplying := files{"bin/supply": ok}
	for name, test := range map[string]struct {
		buildpacks []files
		code       int
		message    string
	}{
		"supply":      {[]files{{"bin/supply": bad}, supplying}, 225, "Failed to run all supply scripts: exit status 1"},
		"no supply":   {[]files{{"bin/finalize": ok}, supplying}, 225, "does not support multi-buildpack apps"},
		"no bin":      {[]files{{"a/b": ok}, supplying}, 225, "malformed buildpack"},
		"finalize":    {[]files{{"bin/finalize": bad}}, 223, "Failed to compile droplet: Failed to run finalize script: exit status 1"},
		"last supply": {[]files{{"bin/finalize": ok, "bin/supply": bad}}, 223, "Failed to compile droplet: Failed to run all supply scripts: exit status 1"},
		"compile":     {[]files{{"bin/compile": bad}}, 223, "Failed to compile droplet: exit status 1"},
		"release":     {[]files{{"bin/finalize": ok, "bin/release": bad}}, 224, "Failed to build droplet release: exit status 1"},
		"no release":  {[]files{{"bin/finalize": ok}}, 224, "Failed to build droplet release"},
		"detect":      {nil, 222, "None of the buildpacks detected a compatible application"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCell(t, cell.Options{SystemBuildpacks: []cell.Buildpack{buildpack(t, "declines", files{"bin/detect": bad})}})
			a := cell.App{Name: "app", Dir: files{}.write(t)}
			for i, f := range test.buildpacks {
				a.Buildpacks = append(a.Buildpacks, buildpack(t, fmt.Sprint("b", i), f))
			}
			_, err := c.Stage(timeout(t), a)
			var failed *cell.StagingError
			if !errors.As(err, &failed) || failed.Status.Code != test.code || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want %d %s", err, test.code, test.message)
			}
		})
	}
}

func TestDetectedBuildpackIsTheOnlyOne(t *testing.T) {
	declines := buildpack(t, "declines", files{"bin/detect": "#!/bin/bash\nexit 1\n"})
	accepts := buildpack(t, "accepts", files{
		"bin/detect":   "#!/bin/bash\necho yes 1.0\n",
		"bin/supply":   launch + "echo index $4\n",
		"bin/finalize": "#!/bin/bash\n",
		"bin/release":  "#!/bin/bash\necho 'default_process_types: {web: released}'\n",
	})
	c := newCell(t, cell.Options{SystemBuildpacks: []cell.Buildpack{declines, accepts}})
	d, err := c.Stage(timeout(t), cell.App{Name: "app", Dir: files{}.write(t)})
	must(t, err)
	want := cell.Result{
		ProcessTypes: map[string]string{"web": "released"}, Sidecars: []cell.Sidecar{},
		Buildpacks: []cell.BuildpackMetadata{{Key: "accepts", Name: "yes 1.0"}},
	}
	if diff := cmp.Diff(want, d.Result); diff != "" || !strings.Contains(d.Log, "index 0\n") {
		t.Errorf("%s\n%s", diff, d.Log)
	}
}

func TestIsolatedStaging(t *testing.T) {
	c := newCell(t, cell.Options{})
	devices := buildpack(t, "devices", files{"bin/finalize": "#!/bin/bash\necho devices $(grep -o '[a-z0-9]*:' /proc/net/dev)\n", "bin/release": "#!/bin/bash\necho '--- {}'\n"})
	for isolated, want := range map[bool]string{true: "devices lo:\n", false: "devices lo: eth0:\n"} {
		d, err := c.Stage(timeout(t), cell.App{Name: "app", Dir: files{}.write(t), Buildpacks: []cell.Buildpack{devices}, Isolated: isolated})
		must(t, err)
		if !strings.Contains(d.Log, want) {
			t.Errorf("isolated %t: %q", isolated, d.Log)
		}
	}
}

func TestStagingCanBeCancelled(t *testing.T) {
	c := newCell(t, cell.Options{})
	ctx, cancel := context.WithCancel(timeout(t))
	slow := buildpack(t, "slow", files{"bin/finalize": "#!/bin/bash\necho busy; sleep 1000\n"})
	a := cell.App{Name: "app", Dir: files{}.write(t), Buildpacks: []cell.Buildpack{slow}}
	staged := make(chan error)
	go func() {
		_, err := c.Stage(ctx, a)
		staged <- err
	}()
	until(t, "busy", func() bool { return len(c.Logs("app")) > 0 })
	cancel()
	if err := <-staged; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if l := c.Logs("app")[0]; l.Label != "STG/0" || l.Text != "busy" {
		t.Errorf("got %v", l)
	}
}
