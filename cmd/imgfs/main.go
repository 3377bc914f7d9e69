// Command imgfs mounts and reads container images straight from a registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/pflag"
)

func main() {
	limitMemory(0)
	noCoreFiles()
	log.SetOutput(io.Discard) // net/http writes there what servers send unasked
	keepToOurselves()
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	e := newEnv(os.Stdout, os.Stderr)
	code := e.watchOver(ctx, func() int { return e.run(ctx, os.Args[1:]) })
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
  imgfs stats DIR            print what a mount has read, fetched and waited for
  imgfs ls IMAGE [PATH...]   list files of the image
  imgfs cat IMAGE PATH...    print files of the image
  imgfs inspect IMAGE        print what the image says of itself, as JSON
  imgfs index IMAGE          read and index the image's layers ahead of time
  imgfs cache ls             list what is kept of images; also: cache prune, cache verify
  imgfs help [COMMAND]       say more of a command, and what flags it has; also: imgfs version
IMAGE: a reference as for docker, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF]
Every command takes:
      --cache-dir DIR    where to keep layers and indexes (IMGFS_CACHE_DIR; default ~/.cache/imgfs)
      --cache-size SIZE  how much to keep (IMGFS_CACHE_SIZE; default 10G or 1/10 of the free disk)
      --max-metadata SIZE    refuse an image whose names and attributes take more memory (1G)
      --max-layer-size SIZE  refuse a layer that is bigger (default 64G unpacked, 16G as it is sent)
      --offline          use only what is in the cache, and never the network
      --platform P       os/arch[/variant] of the image (default: this machine's)
      --tls-verify=BOOL  true: only https with a certificate to trust; false: any, and plain http
      --authfile FILE    credentials (default: where podman and docker look)
      --allow-private    let registries lead to addresses in private networks and on this machine
  -q, --quiet            say nothing but errors
  -v, --verbose          say what is asked of the registry
example: imgfs mount fedora:latest /mnt/fedora && ls /mnt/fedora && imgfs umount /mnt/fedora
`

// An action does what a command is for. args is what is left without flags.
type action func(ctx context.Context, e *env, args []string) error

// A command is one word after imgfs, or two.
type command struct {
	usage string
	// setup declares the command's own flags.
	setup func(*pflag.FlagSet) action
	// second are the commands by their second word, for a command that needs
	// one; then there is no setup.
	second map[string]command
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
		"cache":   cacheCommand(),
		"stats":   statsCommand(),
		"version": versionCommand(),
	}
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return newEnv(stdout, stderr).run(ctx, args)
}

// run does what the command line says and returns the exit code.
func (e *env) run(ctx context.Context, args []string) int {
	defer e.close()
	return e.report(e.dispatch(ctx, args))
}

// dispatch finds the command in args and has it done. Global flags may stand
// before the command and after it.
func (e *env) dispatch(ctx context.Context, args []string) error {
	global := e.globalFlags()
	global.SetInterspersed(false)
	all := command{usage: usage, second: commands()}
	cmd, name := all, ""
	for cmd.second != nil {
		err := global.Parse(args)
		switch {
		case errors.Is(err, pflag.ErrHelp):
			return e.print(cmd.usage)
		case err != nil:
			return withHelp(err, name)
		case global.Arg(0) == "":
			return withHelp(missingCommand(name), name)
		case name == "" && global.Arg(0) == "help":
			return e.help(all, global.Args()[1:])
		}
		if cmd, name, err = cmd.find(name, global.Arg(0)); err != nil {
			return err
		}
		args = global.Args()[1:]
	}
	own := pflag.NewFlagSet("imgfs "+name, pflag.ContinueOnError)
	own.Usage = func() {}
	do := cmd.setup(own)
	own.AddFlagSet(global)
	err := own.Parse(args)
	if err == nil {
		err = do(ctx, e, own.Args())
	}
	if errors.Is(err, pflag.ErrHelp) {
		return e.print(cmd.usage)
	}
	return withHelp(err, name)
}

// find returns the command that a word means behind the words before it, and
// all of these words.
func (c command) find(before, word string) (command, string, error) {
	name := strings.TrimSpace(before + " " + word)
	next, ok := c.second[word]
	if !ok {
		return next, "", withHelp(usageErrorf("unknown command %q", name), before)
	}
	return next, name, nil
}

func missingCommand(name string) error {
	if name == "" {
		return usageError("no command")
	}
	return usageErrorf("%s needs another word", name)
}

// help prints the usage of all, or of the command named.
func (e *env) help(cmd command, words []string) error {
	name := ""
	for _, word := range words {
		if cmd.second == nil {
			return withHelp(usageError("help: one command at a time"), "")
		}
		var err error
		if cmd, name, err = cmd.find(name, word); err != nil {
			return err
		}
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
