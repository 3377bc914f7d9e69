package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/container"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/bundle"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/printable"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// A runner is imgfs run.
type runner struct {
	remove      bool
	interactive bool
	runtime     string
	container   *containerFlags
}

func runCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "run",
		Usage: "[FLAGS] IMAGE [COMMAND [ARG...]]",
		Entry: cli.Entry{Usage: "IMAGE [COMMAND]", Text: "run a command in it; also: bundle, podman, snapshotter"},
		About: `Runs a command, the image's own if none is given, in a container on the image's
tree, by crun, runc or bwrap. What it writes is gone at the end, and it has no
network. Exit codes are the command's, or 125, 126, 127 as podman run has them.`,
		Example:    "imgfs run -it fedora:latest bash",
		OtherFlags: runHabits,
		Failure:    container.ExitFailed,
		Raw:        rawCommand(1),
		Setup: func(f *pflag.FlagSet) cli.Action {
			r := runner{}
			f.BoolVarP(&r.interactive, "interactive", "i", false, "the command reads standard input")
			r.container = newContainerFlags(f)
			f.StringVar(&r.runtime, "runtime", "", "`R` crun, runc or bwrap, or a path (the first there is)")
			set := networkFlags(f)
			f.BoolVar(&r.remove, "rm", false, "")
			f.Lookup("rm").Hidden = true
			cli.Note(f.Lookup("runtime"), cli.Words, "crun", "runc", "bwrap")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("run: no image named")
				}
				if err := set(&e.network); err != nil {
					return err
				}
				return interruptible(ctx, func() error { return r.run(ctx, e, args[0], args[1:]) })
			}
		},
	}
}

// interruptible gives an error that comes of a signal the exit code of that. ctx tells of
// it, and not a channel of this command: the signal may have come before there is one.
func interruptible(ctx context.Context, do func() error) error {
	err := do()
	var ended *cli.ExitError
	sig, ok := serve.EndedBy(ctx)
	if err == nil || !ok || errors.As(err, &ended) {
		return err
	}
	return cli.WithCode(err, 128+int(sig))
}

// interruptedCode returns the exit code of the command that runs, and hangs after a signal.
func (e *env) interruptedCode(ctx context.Context) int {
	code := e.FailureCode()
	if sig, ok := serve.EndedBy(ctx); ok && code == container.ExitFailed { // it is imgfs run
		return 128 + int(sig)
	}
	return code
}

// run runs a command in a container. An error has the exit code that podman has for it.
func (r *runner) run(ctx context.Context, e *env, name string, command []string) error {
	if err := r.checkTerminal(); err != nil {
		return err
	}
	runtime, err := container.FindRuntime(r.runtime)
	if err != nil {
		return err
	}
	if err := wholeImage("run", name, ""); err != nil {
		return err
	}
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	e.streamNow = true // as of mount
	img, err := e.tree(ctx, name, disk)
	if err != nil {
		return err
	}
	defer img.Close()
	defer img.NoteUsed()
	defer new(serve.Forecaster).Begin(ctx, e.Env, img, e.offline, nil)()
	c := &container.Container{Env: e.Env, Tree: img.Tree(), Users: container.FindUsers(), Runtime: runtime, Stdout: os.Stdout, Stderr: os.Stderr}
	c.Options = serve.Options(img, &e.network.servers, func(format string, args ...any) { e.Message(fmt.Sprintf(format, args...)) })
	if r.interactive {
		c.Stdin = e.stdin.file
	}
	if c.Spec, err = r.spec(ctx, e, c, img, command); err != nil {
		return refusedRun(img, err)
	}
	e.clear()
	if _, ok := e.life.Serve(); !ok {
		return context.Cause(ctx)
	}
	return ended(c.Run(ctx))
}

// ended makes an error of how a container ended.
func ended(code int, err error) error {
	var failed *container.Failure
	switch {
	case errors.As(err, &failed) && failed.Hint != "":
		err = cli.WithHint(err, failed.Hint)
	case err == nil && code != 0:
		return &cli.ExitError{Code: code}
	}
	if failed != nil {
		return cli.WithCode(err, failed.Code)
	}
	return err
}

// spec returns what the container is like.
func (r *runner) spec(ctx context.Context, e *env, c *container.Container, img *image.Image, command []string) (*specs.Spec, error) {
	config, err := bundle.ParseConfig(img.Resolved().Config)
	if err != nil {
		return nil, err
	}
	o, err := r.container.options(command)
	if err != nil {
		return nil, err
	}
	o.Capabilities = slices.DeleteFunc(bundle.DefaultCapabilities(), func(name string) bool { return name == "CAP_MKNOD" })
	o.Warn = func(text string) { e.Warnf("%s", text) }
	c.Volumes = slices.Sorted(maps.Keys(config.Config.Volumes))
	if o.ReadOnly {
		o.Binds = append(o.Binds, temporary(img, o.Binds)...)
	}
	if c.Users != nil {
		o.Rootless, o.Nested, o.UIDs, o.GIDs = true, true, c.Users.UIDs, c.Users.GIDs
	}
	return bundle.Spec(ctx, config, img.Tree(), o)
}

// temporary returns mounts of memory on the directories for temporary files, as podman run
// --read-only has them, unless the image has something else there.
func temporary(img *image.Image, binds []specs.Mount) (mounts []specs.Mount) {
	isDir := func(name string) bool {
		n, err := img.Tree().Lookup(name, false)
		return errors.Is(err, os.ErrNotExist) || err == nil && n.Attr().Mode&unix.S_IFMT == unix.S_IFDIR
	}
	for dir, mode := range map[string]string{"/run": "mode=0755", "/tmp": "mode=1777", "/var/tmp": "mode=1777"} {
		taken := slices.ContainsFunc(binds, func(m specs.Mount) bool { return m.Destination == dir })
		if isDir(path.Dir(dir)) && isDir(dir) && !taken {
			mounts = append(mounts, specs.Mount{Destination: dir, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", mode}})
		}
	}
	return mounts
}

// refusedRun names the image in an error about what it cannot be run as.
func refusedRun(img *image.Image, err error) error {
	var refused *bundle.Error
	if !errors.As(err, &refused) {
		return err
	}
	return cli.WithCode(fmt.Errorf("%s: %w", printable.Name(img.Name()), err), refused.Status())
}

// checkTerminal refuses a terminal where there is none.
func (r *runner) checkTerminal() error {
	if _, ok := cli.Terminal(os.Stdin); r.container.terminal && r.interactive && !ok {
		return cli.WithHint(errors.New("run -it: the input device is not a TTY"), "leave out -t where a script or a pipe is the input")
	}
	return nil
}

// runHabits are flags of podman run and docker run that there are not, and what to type:
// containerHabits, and these.
var runHabits = func() map[string]string {
	const (
		background = "imgfs run IMAGE ... &; nothing of a container stays behind its command"
		limits     = "systemd-run --scope -p MemoryMax=1G imgfs run ..., and other limits of systemd"
		podman     = "podman run {FLAG}: imgfs gives a container what all have, and no more"
	)
	hints := map[string]string{
		"-d": background, "--detach": background, "-m": limits, "--memory": limits, "--cpus": limits, "--pids-limit": limits,
		"--userns": "leave it out: a plain user's containers have a user namespace", "--restart": "a unit of systemd with Restart=",
		"--sig-proxy": "leave it out: signals are passed on", "--detach-keys": "leave it out: there are none", "--stop-timeout": "leave it out: it is 10 s",
		"--tmpfs": "leave it out: what is written is gone at the end",
	}
	for _, flag := range []string{"--privileged", "--cap-add", "--cap-drop", "--security-opt", "--device", "--ulimit", "--sysctl", "--pod", "--shm-size"} {
		hints[flag] = strings.ReplaceAll(podman, "{FLAG}", flag)
	}
	for flag, hint := range containerHabits {
		if hints[flag] == "" {
			hints[flag] = hint
		}
	}
	return hints
}()
