package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// launchYML is what a buildpack leaves in its deps directory.
type launchYML struct {
	Processes []process `yaml:"processes"`
}

// process is a process type, or with SidecarFor a sidecar of some.
type process struct {
	Type    string `yaml:"type"`
	Command string `yaml:"command"`
	Limits  struct {
		Memory int `yaml:"memory"` // MB
	} `yaml:"limits"`
	Platforms struct {
		CloudFoundry struct {
			SidecarFor []string `yaml:"sidecar_for"`
		} `yaml:"cloudfoundry"`
	} `yaml:"platforms"`
}

// stagingResult is what the platform learns from staging.
type stagingResult struct {
	Lifecycle    lifecycleMetadata `json:"lifecycle_metadata"`
	ProcessTypes map[string]string `json:"process_types"`
	Sidecars     []sidecar         `json:"sidecars"`
}

type lifecycleMetadata struct {
	Buildpacks []buildpackMetadata `json:"buildpacks"`
}

type sidecar struct {
	Name         string   `json:"name"`
	Command      string   `json:"command"`
	ProcessTypes []string `json:"process_types"`
	Memory       int      `json:"memory,omitempty"` // MB
}

// buildpackMetadata is what a buildpack says of itself in its config.yml.
type buildpackMetadata struct {
	Key     string           `json:"key" yaml:"-"`
	Name    string           `json:"name" yaml:"name"`
	Version string           `json:"version,omitempty" yaml:"version"`
	Config  *buildpackConfig `json:"-" yaml:"config"`
}

// processes merges what the buildpacks and the app say is to be run. dir is the
// last buildpack, which is asked by bin/release only if it has no launch.yml.
func (b *build) processes(dir string) ([]process, error) {
	var all []process
	last := false
	for i := range b.Buildpacks {
		more, ok, err := b.launchYML(i)
		if err != nil {
			return nil, err
		}
		all, last = merge(all, more), ok
	}
	if !last {
		commands, err := b.release(dir)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", releaseFailed, err)
		}
		all = merge(all, plain(commands))
	}
	commands, err := b.procfile()
	if err != nil {
		return nil, err
	}
	return merge(all, plain(commands)), nil
}

// launchYML reads the i-th buildpack's file, if it has one. As on Cloud Foundry
// the number is not padded here, so that with ten or more buildpacks the first
// ten are not found; and what a detected buildpack has written is not read.
func (b *build) launchYML(i int) (processes []process, ok bool, err error) {
	if b.Detect {
		return nil, false, nil
	}
	text, err := os.ReadFile(filepath.Join(b.depsDir(), strconv.Itoa(i), "launch.yml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var launch launchYML
	if err := yaml.Unmarshal(text, &launch); err != nil {
		return nil, false, fmt.Errorf("failed to parse launch.yml of buildpack %d: %w", i, err)
	}
	return launch.Processes, true, nil
}

func (b *build) release(dir string) (map[string]string, error) {
	var out bytes.Buffer
	if err := b.script(&out, dir, "release", b.BuildDir); err != nil {
		return nil, err
	}
	var release struct {
		DefaultProcessTypes map[string]string `yaml:"default_process_types"`
	}
	if err := yaml.Unmarshal(out.Bytes(), &release); err != nil {
		return nil, fmt.Errorf("buildpack's release output invalid: %w", err)
	}
	return release.DefaultProcessTypes, nil
}

// merge lets a later process replace an earlier one of its type, be it a sidecar
// or not.
func merge(all, more []process) []process {
	for _, p := range more {
		if i := slices.IndexFunc(all, func(q process) bool { return q.Type == p.Type }); i >= 0 {
			all[i] = p
		} else {
			all = append(all, p)
		}
	}
	return all
}

func plain(commands map[string]string) (processes []process) {
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		processes = append(processes, process{Type: name, Command: commands[name]})
	}
	return processes
}

// conclude writes what the launcher and the platform need to know. detected is
// what a buildpack that was not asked for calls itself.
func (b *build) conclude(processes []process, detected string) error {
	result := stagingResult{ProcessTypes: map[string]string{}, Sidecars: []sidecar{}}
	for _, p := range processes {
		if targets := p.Platforms.CloudFoundry.SidecarFor; len(targets) > 0 {
			result.Sidecars = append(result.Sidecars, sidecar{Name: p.Type, Command: p.Command, ProcessTypes: targets, Memory: p.Limits.Memory})
		} else {
			result.ProcessTypes[p.Type] = p.Command
		}
	}
	if result.ProcessTypes["web"] == "" {
		fmt.Fprintln(b.stderr, "No start command specified by buildpack or via Procfile.")
		fmt.Fprintln(b.stderr, "App will not start unless a command is provided at runtime.")
	}
	for i, key := range b.Buildpacks {
		result.Lifecycle.Buildpacks = append(result.Lifecycle.Buildpacks, b.metadata(i, key))
	}
	last := &result.Lifecycle.Buildpacks[len(b.Buildpacks)-1]
	if last.Name == "" {
		last.Name = detected
	}
	info := stagingInfo{DetectedBuildpack: last.Name, StartCommand: result.ProcessTypes["web"], Config: last.Config}
	if err := writeJSON(filepath.Join(b.ContentsDir, stagingInfoFile), info); err != nil {
		return err
	}
	return writeJSON(b.ResultFile, result)
}

// metadata is best effort, as a buildpack need not say anything.
func (b *build) metadata(i int, key string) buildpackMetadata {
	m := buildpackMetadata{}
	if text, err := os.ReadFile(filepath.Join(b.depsDir(), b.depsIndex(i), "config.yml")); err == nil {
		_ = yaml.Unmarshal(text, &m)
	}
	m.Key = key
	return m
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("failed to write %s: %w", filepath.Base(path), err)
	}
	return nil
}
