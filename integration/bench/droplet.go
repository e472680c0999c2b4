package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/droplet"
)

// droplet adds up the files of deps/IDX, which staging adds to a droplet.
func dropletAdded(ctx context.Context, b *bench) ([]result, error) {
	sizes := map[way]float64{}
	for _, w := range []way{ours, agentless} {
		s, err := b.stage(ctx, w, webService)
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(filepath.Join(s.droplet.Dir, "deps", "0"), func(_ string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				sizes[w] += float64(info.Size()) / 1e6
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	r := result{Name: "droplet-agentless", Unit: "MB", Ours: sizes[agentless]}
	return []result{r.beside(sizes[ours]).aimedAt(goal{ofAgent: 0.45})}, nil
}

// packedWays are measured around our part of a start, in this order.
var packedWays = []way{ours, agentless, naive, plain}

// dropletPacked takes, of the droplets of one app, the size that the platform keeps,
// the time in which its builder packs that, and the time in which a cell unpacks it.
func dropletPacked(ctx context.Context, b *bench) ([]result, error) {
	defer os.RemoveAll(b.packedDir())
	sizes := map[way]float64{}
	packing, err := b.alternate(ctx, "droplet-pack", min(*runs, manyRuns), packedWays, func(ctx context.Context, w way) (time.Duration, error) {
		file, took, err := b.pack(ctx, w, webService)
		if err != nil {
			return 0, err
		}
		info, err := os.Stat(file)
		if err == nil {
			sizes[w] = float64(info.Size()) / 1e6
		}
		return took, err
	})
	if err != nil {
		return nil, err
	}
	unpacking, err := b.alternate(ctx, "droplet-unpack", *runs, packedWays, func(_ context.Context, w way) (time.Duration, error) {
		return b.unpack(w, webService)
	})
	if err != nil {
		return nil, err
	}
	var all []result
	for _, m := range []struct {
		name, unit string
		of         map[way]float64
	}{{"droplet-packed", "MB", sizes}, {"droplet-pack", "s", packing}, {"droplet-unpack", "s", unpacking}} {
		all = append(all, besidePlain(m.name, m.unit, m.of)...)
	}
	return all, nil
}

// startInAll is first-request with what a cell does before: it unpacks the droplet.
// Both apps' cells do that at the same time, so it counts once.
func startInAll(ctx context.Context, b *bench) ([]result, error) {
	if err := b.stopCallers(ctx); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.packedDir())
	for _, w := range packedWays {
		if _, _, err := b.pack(ctx, w, tcpService); err != nil {
			return nil, err
		}
	}
	if err := b.startNeighbours(ctx); err != nil {
		return nil, err
	}
	times, err := b.alternate(ctx, "start-in-all", *runs, packedWays, func(ctx context.Context, w way) (time.Duration, error) {
		if _, err := b.stage(ctx, w, caller); err != nil {
			return 0, err
		}
		unpacking, err := b.unpack(w, tcpService)
		if err != nil {
			return 0, err
		}
		start, err := b.startPair(ctx, w)
		return unpacking + start, err
	})
	if err := errors.Join(err, b.stopNeighbours(ctx)); err != nil {
		return nil, err
	}
	return besidePlain("start-in-all", "s", times), nil
}

// besidePlain are the results with an agent and without, beside an app that has no
// mesh.
func besidePlain(name, unit string, of map[way]float64) []result {
	r := result{Name: name, Unit: unit, Ours: of[ours], Plain: at(of[plain])}.against(at(of[naive]), nil)
	without := r.agentless(of[agentless])
	without.Plain = r.Plain
	return []result{r, without}
}

// packedDir is where packed droplets are: on a disk, as on the platform.
func (b *bench) packedDir() string { return filepath.Join(b.f.Binaries.Build(), "droplets") }

func (b *bench) packed(w way, role string) string {
	return filepath.Join(b.packedDir(), w.name(role)+".tgz")
}

// pack packs the droplet of an app and tells how long that took.
func (b *bench) pack(ctx context.Context, w way, role string) (file string, took time.Duration, err error) {
	s, err := b.stage(ctx, w, role)
	if err != nil {
		return "", 0, err
	}
	file = b.packed(w, role)
	if err := os.MkdirAll(b.packedDir(), 0o755); err != nil {
		return "", 0, err
	}
	begun := time.Now()
	err = droplet.Pack(s.droplet.Dir, file)
	return file, time.Since(begun), err
}

// unpack unpacks a droplet that was packed into an empty folder on the disk, and
// tells how long that took.
func (b *bench) unpack(w way, role string) (time.Duration, error) {
	dir, err := os.MkdirTemp(b.f.Binaries.Build(), "unpacked")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	begun := time.Now()
	err = droplet.Unpack(b.packed(w, role), dir)
	return time.Since(begun), err
}
