// Command imgfs mounts and reads container images straight from a registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

const usage = `imgfs shows what is in a container image, without pulling it

  imgfs mount IMAGE DIR      mount the image's tree on DIR, read-only
  imgfs umount DIR...        unmount it again
  imgfs ls IMAGE [PATH...]   list files of the image
  imgfs cat IMAGE PATH...    print files of the image
  imgfs inspect IMAGE        print what the image says of itself, as JSON
  imgfs index IMAGE          read and index the image's layers ahead of time
  imgfs version              print the version of imgfs
  imgfs help COMMAND         say more of a command, and what flags it has

IMAGE is a reference as docker writes it (fedora, quay.io/a/b:v1, host:5000/x@sha256:...)
or oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF].

Every command takes:
      --cache-dir DIR    where to keep layers and indexes (IMGFS_CACHE_DIR; default ~/.cache/imgfs)
      --platform P       os/arch[/variant] of the image (default: this machine's)
      --tls-verify=BOOL  true: only https with a certificate to trust; false: any, and plain http
      --authfile FILE    credentials (default: where podman and docker look)
  -q, --quiet            say nothing but errors
  -v, --verbose          say what is asked of the registry

example: imgfs mount fedora:latest /mnt/fedora && ls /mnt/fedora && imgfs umount /mnt/fedora
`

// An action does what a command is for. args is what is left without flags.
type action func(ctx context.Context, e *env, args []string) error

// A command is one word after imgfs.
type command struct {
	usage string
	// setup declares the command's own flags.
	setup func(*pflag.FlagSet) action
}

func commands() map[string]command {
	return map[string]command{
		"mount":   mountCommand(),
		"umount":  umountCommand(),
		"unmount": umountCommand(),
		"ls":      lsCommand(),
		"cat":     catCommand(),
		"inspect": inspectCommand(),
		"index":   indexCommand(),
		"version": versionCommand(),
	}
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := newEnv(stdout, stderr)
	return e.report(e.dispatch(ctx, args))
}

// dispatch finds the command in args and has it done. Global flags may stand
// before the command and after it.
func (e *env) dispatch(ctx context.Context, args []string) error {
	global := e.globalFlags()
	global.SetInterspersed(false)
	err := global.Parse(args)
	name := global.Arg(0)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return e.print(usage)
	case err != nil:
		return withHelp(err, "")
	case name == "help":
		return e.help(global.Args()[1:])
	case name == "":
		return withHelp(usageError("no command"), "")
	}
	cmd, ok := commands()[name]
	if !ok {
		return withHelp(usageErrorf("unknown command %q", name), "")
	}
	own := pflag.NewFlagSet("imgfs "+name, pflag.ContinueOnError)
	own.Usage = func() {}
	do := cmd.setup(own)
	own.AddFlagSet(global)
	if err = own.Parse(global.Args()[1:]); err == nil {
		err = do(ctx, e, own.Args())
	}
	if errors.Is(err, pflag.ErrHelp) {
		return e.print(cmd.usage)
	}
	return withHelp(err, name)
}

// help prints the usage of all, or of the command named.
func (e *env) help(args []string) error {
	if len(args) == 0 {
		return e.print(usage)
	}
	cmd, ok := commands()[args[0]]
	switch {
	case len(args) > 1:
		return withHelp(usageError("help: one command at a time"), "")
	case !ok:
		return withHelp(usageErrorf("unknown command %q", args[0]), "")
	}
	return e.print(cmd.usage)
}

func (e *env) print(text string) error {
	_, err := fmt.Fprint(e.stdout, text)
	return err
}

// report prints an error, if there is one, and returns the exit code.
func (e *env) report(err error) int {
	var silent *exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return silent.code
	}
	e.errorf(err)
	if isUsage(err) {
		return exitUsage
	}
	return exitError
}

// each does something with every argument, whatever becomes of the others,
// and says of each what went wrong.
func (e *env) each(args []string, do func(string) error) error {
	var failed error
	for _, arg := range args {
		if err := do(arg); err != nil {
			e.errorf(err)
			failed = &exitCode{exitError}
		}
	}
	return failed
}

// An exitCode ends the command with a code, for a reason already printed.
type exitCode struct{ code int }

func (e *exitCode) Error() string { return fmt.Sprintf("exit code %d", e.code) }
