// Command bench measures imgfs beside its peers, in three groups of sections:
//
//	index  making, storing, loading and reading layer indexes
//	net    what imgfs moves over a slow line, and how long that takes
//	fuse   a mounted image beside other file systems
//
// It prints tables, and exits 0 also when a wanted figure is missed; it does
// not when something is broken or bytes differ.
//
//	go run ./testdata/bench index|net|fuse [flags] [bin/imgfs]
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/imgfs/imgfs/testdata/bench/internal/fuse"
	"github.com/imgfs/imgfs/testdata/bench/internal/index"
	"github.com/imgfs/imgfs/testdata/bench/internal/network"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// groups are the parts of the program by their names.
var groups = map[string]func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int{
	"index": index.Run, "net": network.Run, "fuse": fuse.Run,
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 || groups[args[0]] == nil {
		fmt.Fprintln(stderr, "usage: bench index|net|fuse [flags] [bin/imgfs]")
		return 2
	}
	return groups[args[0]](ctx, args[1:], stdin, stdout, stderr)
}
