package hosts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

const defaultHelperTimeout = 10 * time.Second

// inHelper asks a credential helper, which a file names or, if that is "",
// registries.conf. One that is not installed has nothing, and that is told
// quietly: docker and podman pass over it, too.
func (l *lookUp) inHelper(ctx context.Context, name, file string) Credential {
	program := "docker-credential-" + name
	if l.failed[program] {
		return Credential{}
	}
	what, origin := "credential helper "+printable.Line(program), printable.Line(program)
	if file != "" {
		what = printable.Text(file) + ": " + what
		origin += " (" + printable.Text(file) + " names it)"
	}
	if filepath.Base(program) != program {
		l.failed[program] = true
		l.complain(false, fmt.Errorf("%s: not the name of a program", what))
		return Credential{}
	}
	registry := l.keys[len(l.keys)-1]
	servers := []string{registry}
	if registry == dockerHub {
		// docker login stores it under the URL it had at the beginning.
		servers = []string{"https://index.docker.io/v1/", "index.docker.io", dockerHub}
	}
	for _, server := range servers {
		c, err := l.files.run(ctx, program, server)
		if err != nil {
			l.failed[program] = true
			l.complain(errors.Is(err, errNotInstalled), fmt.Errorf("%s: %w", what, err))
			return Credential{}
		}
		if !c.Empty() {
			c.Origin = origin
			return c
		}
	}
	return Credential{}
}

var errNotInstalled = errors.New("it is not installed")

// run asks a helper for one server's credential. The helper and whatever it
// starts are killed when its time is over. What it prints on stderr is quoted in
// the error, and nothing of its stdout, which may hold a secret.
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
	out, words := &cappedBuffer{most: 256 << 10, full: cancel}, &cappedBuffer{most: 64 << 10, full: func() {}}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(server), out, words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killAll(cmd.Process.Pid) }
	// A process that cut itself off from it can hold the pipes.
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	c, err := answer(program, bytes.TrimSpace(out.data), string(words.data), err)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		err = fmt.Errorf("killed before it answered: %w", context.Cause(ctx))
	case errors.Is(timed.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %s", timeout)
	case out.overflow:
		err = fmt.Errorf("more than %d bytes of output", out.most)
	}
	if said := scrub.Words(withoutSecrets(string(words.data), out.data)); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return Credential{}, err
}

// answer says what it means that a helper ended with err after it printed text on
// stdout and words on stderr.
func answer(program string, text []byte, words string, err error) (Credential, error) {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return decodeHelper(text)
	case errors.As(err, &exit) && (hasNone(string(text)) || hasNone(strings.TrimSpace(words))):
		return Credential{}, nil
	case errors.As(err, &exit):
		return Credential{}, fmt.Errorf("it ends with %v", exit)
	case errors.Is(err, exec.ErrNotFound):
		if path := inPath(program); path != "" {
			return Credential{}, fmt.Errorf("%s may not be executed", printable.Text(path))
		}
		return Credential{}, errNotInstalled
	case errors.Is(err, fs.ErrNotExist):
		return Credential{}, errors.New("it cannot be started: the interpreter that it names is not there")
	}
	return Credential{}, fmt.Errorf("it cannot be started: %w", bare(err))
}

// inPath returns the first file of a name in the directories of PATH, whether it is
// a program or not, "" if there is none.
func inPath(name string) string {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

var secretPattern = regexp.MustCompile(`"[Ss]ecret"\s*:\s*"((?:[^"\\]|\\.)+)`)

// withoutSecrets leaves out of what a helper says what it printed on stdout as a
// secret: some print all that they do. A text of several words is no secret.
func withoutSecrets(words string, stdout []byte) string {
	var secrets []string
	for _, match := range secretPattern.FindAllSubmatch(stdout, -1) {
		secrets = append(secrets, string(match[1]))
	}
	if fields := strings.Fields(string(stdout)); len(fields) == 1 {
		secrets = append(secrets, fields[0])
	}
	for _, secret := range secrets {
		words = strings.ReplaceAll(words, secret, "…")
	}
	return words
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
	switch {
	case json.Unmarshal(text, &answer) != nil:
		return Credential{}, errors.New("its output is not JSON")
	case answer.Secret == "" && answer.Username != "":
		return Credential{}, errors.New("there is no secret in its output")
	case answer.Username == "<token>":
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
