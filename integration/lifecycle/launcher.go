package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

// stagingInfoFile is looked up in the working directory, /home/vcap.
const stagingInfoFile = "staging_info.yml"

// stagingInfo is what staging leaves in the droplet for the launcher.
type stagingInfo struct {
	DetectedBuildpack string           `json:"detected_buildpack" yaml:"detected_buildpack"`
	StartCommand      string           `json:"start_command" yaml:"start_command"`
	Config            *buildpackConfig `json:"config,omitempty" yaml:"config,omitempty"`
}

// buildpackConfig is what the last buildpack may ask for in its config.yml.
type buildpackConfig struct {
	EntrypointPrefix string `json:"entrypoint_prefix,omitempty" yaml:"entrypoint_prefix,omitempty"`
}

// sourcing goes to the app's directory, $1, and sources every buildpack's and
// the app's scripts, which see the command that is about to start in $2.
//
//go:embed sourcing.sh
var sourcing string

// launcher starts a process, a sidecar or a task of an app:
// launcher APPDIR COMMAND METADATA. An empty COMMAND is the one that staging
// found for the web process.
func launcher(args []string) int {
	if len(args) < 3 {
		fmt.Fprintf(os.Stderr, "%s: received only %d arguments\n", os.Args[0], len(args))
		fmt.Fprintf(os.Stderr, "Usage: %s <app-directory> <start-command> <metadata>\n", os.Args[0])
		return 1
	}
	info, err := readStagingInfo(stagingInfoFile)
	if err != nil {
		fmt.Fprintf(os.Stderr, "Invalid staging info - %s\n", err)
		return 1
	}
	command := args[1]
	if command == "" {
		command = info.StartCommand
	}
	if command == "" {
		fmt.Fprintf(os.Stderr, "%s: no start command specified or detected in droplet\n", os.Args[0])
		return 1
	}
	prefix := ""
	if info.Config != nil {
		prefix = info.Config.EntrypointPrefix
	}
	return start(args[0], command, prefix)
}

// shell is for a person in "cf ssh", which is a plain bash: shell [APPDIR]. A bash takes the place of the
// command.
func shell(args []string) int {
	dir := "app"
	if len(args) > 0 {
		dir = args[0]
	}
	return start(dir, "bash", "")
}

// start becomes the command. It returns only if it cannot.
func start(dir, command, prefix string) int {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	setEnvironment(dir)
	args := []string{"bash", "-c", script(prefix), os.Args[0], dir, command}
	err := syscall.Exec("/bin/bash", args, os.Environ())
	fmt.Fprintf(os.Stderr, "%s: failed to run bash: %s\n", os.Args[0], err)
	return 1
}

func script(prefix string) string {
	if prefix == "" {
		return sourcing + `exec bash -c "$@"` + "\n"
	}
	return sourcing + "exec " + prefix + ` "$@"` + "\n"
}

// setEnvironment adds what depends on where the droplet is, and on the
// instance.
func setEnvironment(dir string) {
	os.Setenv("HOME", dir)
	os.Setenv("TMPDIR", filepath.Join(dir, "..", "tmp"))
	os.Setenv("DEPS_DIR", filepath.Join(dir, "..", "deps"))
	if app, ok := amendApplication(os.Getenv("VCAP_APPLICATION"), os.Getenv); ok {
		os.Setenv("VCAP_APPLICATION", app)
	}
}

// amendApplication adds to VCAP_APPLICATION what only the container knows. What
// is no JSON object stays as it is.
func amendApplication(value string, getenv func(string) string) (amended string, ok bool) {
	var app map[string]any
	if err := json.Unmarshal([]byte(value), &app); err != nil || app == nil {
		return "", false
	}
	app["host"] = "0.0.0.0"
	app["instance_id"] = getenv("INSTANCE_GUID")
	for key, name := range map[string]string{"port": "PORT", "instance_index": "INSTANCE_INDEX"} {
		if n, err := strconv.Atoi(getenv(name)); err == nil {
			app[key] = n
		}
	}
	b, err := json.Marshal(app)
	return string(b), err == nil
}

func readStagingInfo(path string) (info stagingInfo, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return info, nil
	}
	if err != nil {
		return info, err
	}
	if err := yaml.Unmarshal(b, &info); err != nil {
		return info, fmt.Errorf("failed to parse %s: %w", path, err)
	}
	if info.Config != nil {
		info.Config.EntrypointPrefix = strings.TrimSpace(info.Config.EntrypointPrefix)
	}
	return info, nil
}
