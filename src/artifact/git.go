package artifact

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// getGit gets one file of a repository at a ref, with the program git.
//
// go-getter's own way is not offered: it gives git an address with its
// credentials as an argument, which every process of the container may read,
// and clones the whole history with all submodules.
func (s Store) getGit(ctx context.Context, a Artifact, from address, path string, to *received) error {
	repository := path + ".git"
	if err := os.RemoveAll(repository); err != nil {
		return err
	}
	bare := *from.url
	bare.User = nil
	git := func(out io.Writer, args ...string) error {
		return runGit(ctx, append(gitEnv(from, s.Stall), "GIT_DIR="+repository), out, args...)
	}
	if err := git(nil, "init", "--quiet", "--bare"); err != nil {
		return err
	}
	if err := git(nil, "fetch", "--quiet", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--", bare.String(), from.ref); err != nil {
		return err
	}
	inside := from.inside
	if inside == "" {
		inside = a.Name
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	content := &written{Writer: io.MultiWriter(file, to)}
	err = git(content, "cat-file", "blob", "FETCH_HEAD:"+inside)
	if content.err != nil {
		err = content.err // what git says of it is that its reader is gone
	}
	return errors.Join(err, file.Close(), os.RemoveAll(repository))
}

// written is a writer that remembers why it could not be written to.
type written struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (w *written) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// runGit runs git, and whatever it starts, to its end.
func runGit(ctx context.Context, env []string, out io.Writer, args ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, &said
	// What git starts for https ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil || !errors.As(err, &exit):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	text := strings.TrimSpace(said.String())
	if text == "" {
		text = err.Error()
	}
	return &gitError{said: text, final: args[0] != "fetch" || refusal.MatchString(text), err: err}
}

// refusal matches what git says where trying again is no use.
var refusal = regexp.MustCompile(`not found|Authentication failed|could not read Username|couldn't find remote ref|not our ref|returned error: 4|certificate|` + proxyRefusal)

// byProxy matches what git says of a proxy that opens no tunnel; proxyRefusal is where
// trying again is no use.
var byProxy = regexp.MustCompile(`from proxy after CONNECT|CONNECT tunnel failed`)

const proxyRefusal = `HTTP code 40[37] from proxy|CONNECT tunnel failed, response 40[37]`

// gitEnv is the environment of a fetch. It has the credentials as a header, because
// no other user can read an environment; it keeps git from asking anybody for more;
// and it bounds how long a server may stall.
func gitEnv(from address, stall time.Duration) []string {
	var env []string
	for _, variable := range os.Environ() {
		// These name a repository of the caller's, or a trace that would have the
		// header in it.
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "GIT_TRACE") && name != "GIT_DIR" && name != "GIT_WORK_TREE" && name != "GIT_INDEX_FILE" {
			env = append(env, variable)
		}
	}
	env = append(env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=",
		"GIT_HTTP_LOW_SPEED_LIMIT=1", fmt.Sprintf("GIT_HTTP_LOW_SPEED_TIME=%d", max(1, int(stall.Seconds()))))
	if authorities := os.Getenv("SSL_CERT_FILE"); authorities != "" && os.Getenv("GIT_SSL_CAINFO") == "" {
		env = append(env, "GIT_SSL_CAINFO="+authorities)
	}
	if from.url.User == nil {
		return env
	}
	password, _ := from.url.User.Password()
	credentials := base64.StdEncoding.EncodeToString([]byte(from.url.User.Username() + ":" + password))
	count, _ := strconv.Atoi(os.Getenv("GIT_CONFIG_COUNT"))
	return append(env,
		fmt.Sprintf("GIT_CONFIG_COUNT=%d", count+1),
		fmt.Sprintf("GIT_CONFIG_KEY_%d=http.%s://%s/.extraHeader", count, from.url.Scheme, from.url.Host),
		fmt.Sprintf("GIT_CONFIG_VALUE_%d=Authorization: Basic %s", count, credentials))
}
