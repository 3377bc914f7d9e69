// Command imgfs mounts and reads container images straight from a registry.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/container"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"golang.org/x/sys/unix"
)

func main() {
	if container.IsSupervisor(os.Args) {
		os.Exit(container.Supervise())
	}
	limitMemory(0)
	noCoreFiles()
	setHome()
	log.SetOutput(io.Discard) // net/http writes there what servers send unasked
	umask := serve.Isolate()
	ctx, stop := serve.UntilSignal(context.Background())
	e := newEnv(os.Stdout, os.Stderr)
	e.umask = &umask
	do := func() int { return e.run(ctx, os.Args[1:]) }
	if name := filepath.Base(os.Args[0]); slices.Contains(helperNames, name) {
		do = func() int { return e.runHelper(ctx, name, os.Args[1:]) }
	}
	code := e.life.WatchOver(ctx, do, func() int { return e.interruptedCode(ctx) }, func() {
		e.clear()
		e.Error(context.Canceled)
	})
	stop()
	os.Exit(code)
}

// program is the command line of imgfs. Each command has a file of its own.
func (e *env) program() *cli.Program {
	p := &cli.Program{
		Name:  "imgfs",
		About: "shows what is in a container image, without pulling it",
		Commands: []cli.Command{
			mountCommand(e), umountCommand(e), upgradeCommand(e), psCommand(e), statsCommand(e), runCommand(e), bundleCommand(e), podmanCommand(e),
			lsCommand(e), catCommand(e), statCommand(e), cpCommand(e), tarCommand(e),
			findCommand(e), treeCommand(e), duCommand(e), grepCommand(e), sumCommand(e),
			exploreCommand(e), diffCommand(e), historyCommand(e), inspectCommand(e),
			indexCommand(e), profileCommand(e), cacheCommand(e), snapshotterCommand(e), configCommand(e), completionCommand(e), versionCommand(e),
		},
		HelpEntry: cli.Entry{Usage: "[COMMAND]", Text: "more: help flags, images, environment; imgfs version"},
		Topics:    helpTopics,
		Column:    18,
		Notes:     "IMAGE is a name as docker has it, or oci:DIR, docker-archive:FILE: help images",
		Flags:     e.globalFlags(),
		FlagsNote: "and those that every command takes: imgfs help flags",
		Version:   "version", Others: otherCommands, OtherFlags: otherFlags, Guess: guessCommand,
		Example: "dir=$(imgfs mount -q fedora:latest) && ls $dir && imgfs umount $dir",
	}
	p.Settings, p.Argument = e.settings(p), e.completeArgument
	return p
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return newEnv(stdout, stderr).run(ctx, args)
}

// run does what the command line says and returns the exit code.
func (e *env) run(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == completeCommand {
		return e.complete(ctx, args[1:])
	}
	return e.program().Run(ctx, e.Env, args)
}

// noCoreFiles keeps this process and its children from leaving core files: passwords
// and tokens are in its memory. A container may still have its own.
func noCoreFiles() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &limit) == nil {
		limit.Cur = 0
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &limit) // lowering it always succeeds, or the files are the user's own
	}
}

// setHome sets HOME where it is missing, as at boot and in a unit of systemd, or is the
// root directory, as init has it: all that is looked for in the home directory is then
// where it always is.
func setHome() {
	if home := os.Getenv("HOME"); home != "" && home != "/" {
		return
	}
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err == nil && filepath.IsAbs(u.HomeDir) {
		_ = os.Setenv("HOME", u.HomeDir) // cannot fail
	}
}
