package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/consul-mesh/mesh-buildpack/integration/cell"
	"github.com/consul-mesh/mesh-buildpack/integration/foundation"
)

// TestFullDisk: nothing more can be written in an instance, and then it stops.
func TestFullDisk(t *testing.T) { inEachMode(t, true, fullDisk) }

func fullDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		short bool
		then  func(context.Context, *cell.Instance) error
	}{
		{"and there is room again", false, func(ctx context.Context, i *cell.Instance) error {
			_, err := shell(ctx, i, "rm /home/vcap/tmp/full")
			return err
		}},
		{"and the instance is evacuated", true, func(ctx context.Context, i *cell.Instance) error {
			return mesh.service.Evacuate(ctx, i.Index())
		}},
	} {
		if !long && !c.short {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			survive(t, 0, func(ctx context.Context) (time.Time, error) {
				victim := mesh.service.Instance(dice.IntN(instances))
				from := time.Now()
				status, err := shell(ctx, victim, "cat /dev/zero > /home/vcap/tmp/full 2>/dev/null")
				if err == nil && status == 0 {
					err = errors.New("the disk is not full")
				}
				if err != nil {
					return from, err
				}
				<-time.After(away() / 2)
				return from, c.then(ctx, victim)
			})
		})
	}
}

func shell(ctx context.Context, i *cell.Instance, command string) (int, error) {
	_, status, err := i.SSH(ctx, command)
	return status.Code, err
}

// TestRestarts restarts an instance again and again, in every way there is, at
// random moments of its start.
func TestRestarts(t *testing.T) { inEachMode(t, true, restarts) }

func restarts(t *testing.T) {
	n := 5
	if long {
		n = 100
	}
	// What a crash may cost: half a second of the requests to one instance.
	const each = rate / 2 / instances
	for i := 0; i < n; i += 5 {
		t.Run(fmt.Sprintf("%d to %d", i+1, i+5), func(t *testing.T) {
			result := survive(t, time.Hour, func(ctx context.Context) (time.Time, error) {
				from := time.Now()
				for range 5 {
					if err := restartOne(ctx); err != nil {
						return from, err
					}
					<-time.After(time.Duration(dice.IntN(1500)) * time.Millisecond)
				}
				return from, nil
			})
			if result.Lost > 5*each {
				t.Errorf("%d requests lost, want %d at most", result.Lost, 5*each)
			}
		})
	}
}

// restartOne evacuates the first instance, or crashes a part of it. It returns when there is another.
func restartOne(ctx context.Context) error {
	old := mesh.service.Instance(0)
	names := []string{"evacuate"}
	for _, process := range old.Processes() {
		names = append(names, process.Name)
	}
	slices.Sort(names)
	name := names[dice.IntN(len(names))]
	if name == "evacuate" {
		return mesh.service.Evacuate(ctx, 0)
	}
	if err := old.Crash(name); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return foundation.Eventually(ctx, "there is another instance", func(context.Context) error {
		if mesh.service.Instance(0) == old {
			return errors.New("it is the old one")
		}
		return nil
	})
}
