// Command imgfs mounts and reads container images straight from a registry.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"golang.org/x/sys/unix"
)

func main() {
	limitMemory(0)
	noCoreFiles()
	log.SetOutput(io.Discard) // net/http writes there what servers send unasked
	serve.Isolate()
	ctx, stop := signal.NotifyContext(context.Background(), serve.Signals()...)
	e := newEnv(os.Stdout, os.Stderr)
	code := e.life.WatchOver(ctx, func() int { return e.run(ctx, os.Args[1:]) }, func() {
		e.clear()
		e.Error(context.Canceled)
	})
	stop()
	os.Exit(code)
}

// program is the command line of imgfs. Each command has a file of its own.
func (e *env) program() *cli.Program {
	return &cli.Program{
		Name:  "imgfs",
		About: "shows what is in a container image, without pulling it",
		Commands: []cli.Command{
			mountCommand(e), umountCommand(e), statsCommand(e), lsCommand(e), catCommand(e),
			inspectCommand(e), indexCommand(e), cacheCommand(e), versionCommand(e),
		},
		HelpEntry: cli.Entry{Usage: "[COMMAND]", Text: "say more of a command, and what flags it has; also: imgfs version"},
		Column:    29,
		Notes:     "IMAGE: a reference as for docker, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF]",
		Flags:     e.globalFlags(),
		FlagsNote: "also --platform P, --cache-dir DIR and others that every command takes: imgfs help",
		Version:   "version", Others: otherCommands, OtherFlags: otherFlags, Guess: guessCommand,
		Example: "mkdir -p ~/fedora && imgfs mount fedora ~/fedora && ls ~/fedora && imgfs umount ~/fedora",
	}
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return newEnv(stdout, stderr).run(ctx, args)
}

// run does what the command line says and returns the exit code.
func (e *env) run(ctx context.Context, args []string) int {
	return e.program().Run(ctx, e.Env, args)
}

// noCoreFiles keeps this process and its children from leaving core files: passwords
// and tokens are in its memory.
func noCoreFiles() {
	// Lowering the limit always succeeds, or the files are the user's own.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
