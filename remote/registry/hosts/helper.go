package hosts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const defaultHelperTimeout = 10 * time.Second

// helper asks a credential helper for the registry that keys begin with. It
// returns the zero Credential if the helper has none, or is not installed.
func (a *AuthFiles) helper(ctx context.Context, name string, keys []string) (Credential, error) {
	registry := keys[len(keys)-1]
	servers := []string{registry}
	if registry == dockerHub {
		// docker login stores it under the URL it had at the beginning.
		servers = []string{"https://index.docker.io/v1/", "index.docker.io", dockerHub}
	}
	program := "docker-credential-" + name
	if filepath.Base(program) != program {
		return Credential{}, fmt.Errorf("credential helper %q: not the name of a program", name)
	}
	for _, server := range servers {
		c, err := a.run(ctx, program, server)
		if errors.Is(err, exec.ErrNotFound) {
			a.log("credential helper %s is not installed", program)
			return Credential{}, nil
		}
		if err != nil {
			return Credential{}, fmt.Errorf("credential helper %s: %w", program, err)
		}
		if c != (Credential{}) {
			return c, nil
		}
	}
	return Credential{}, nil
}

// run asks a helper for one server's credential. The helper and whatever it
// starts are killed when its time is over.
// The protocol is that of docker-credential-helpers: the server's name on
// stdin, JSON on stdout.
func (a *AuthFiles) run(ctx context.Context, program, server string) (Credential, error) {
	timeout := a.HelperTimeout
	if timeout <= 0 {
		timeout = defaultHelperTimeout
	}
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(timed, program, "get")
	out := &cappedBuffer{most: 256 << 10, full: cancel}
	cmd.Stdin, cmd.Stdout = strings.NewReader(server), out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killAll(cmd.Process.Pid) }
	// A process that cut itself off from it can hold the pipes.
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	text := bytes.TrimSpace(out.data)
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return decodeHelper(text)
	case ctx.Err() != nil:
		return Credential{}, fmt.Errorf("killed before it answered: %w", context.Cause(ctx))
	case errors.Is(timed.Err(), context.DeadlineExceeded):
		return Credential{}, fmt.Errorf("no answer within %s", timeout)
	case out.overflow:
		return Credential{}, fmt.Errorf("more than %d bytes of output", out.most)
	case errors.As(err, &exit) && hasNone(string(text)):
		return Credential{}, nil
	case errors.As(err, &exit):
		// Its output may be a secret, or part of one.
		return Credential{}, fmt.Errorf("it ends with %v", exit)
	}
	return Credential{}, err
}

// killAll kills a process that leads a group with the group, and with those of
// its descendants that have left the group.
func killAll(leader int) error {
	family := descendants(leader)
	err := syscall.Kill(-leader, syscall.SIGKILL)
	for _, pid := range family {
		_ = syscall.Kill(pid, syscall.SIGKILL) // most went with the group
	}
	return err
}

// descendants returns the children of a process, and theirs, as far as the
// kernel tells; see proc_pid_task(5).
func descendants(pid int) []int {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/children", pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// hasNone tells whether a helper that failed says that it has no credential
// for the server; these are the words of docker's helpers.
func hasNone(text string) bool {
	return slices.Contains([]string{
		"credentials not found in native keychain",
		"no credentials server URL",
		"no credentials username",
	}, text)
}

func decodeHelper(text []byte) (Credential, error) {
	var answer struct{ Username, Secret string }
	if json.Unmarshal(text, &answer) != nil {
		return Credential{}, errors.New("its output is not JSON")
	}
	if answer.Username == "<token>" {
		return Credential{IdentityToken: answer.Secret}, nil
	}
	return Credential{User: answer.Username, Password: answer.Secret}, nil
}

// A cappedBuffer takes so much and no more, and says when it is full.
type cappedBuffer struct {
	data     []byte
	most     int
	full     func()
	overflow bool
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > b.most {
		b.overflow = true
		b.full()
		return len(p), nil
	}
	b.data = append(b.data, p...)
	return len(p), nil
}
