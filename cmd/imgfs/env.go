package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/config"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

// An env is what all commands have: where to print, the flags that all of them
// take, and what ends with the command.
type env struct {
	*cli.Env

	cacheDir  dirFlag
	cacheSize cli.Bound
	limits    limits
	offline   bool
	platform  string
	tlsVerify cli.Bool
	authfile  string
	// credentials is the socket where others are asked for; "": nobody is.
	credentials string
	// dockerHost is the address of docker's daemon; "": docker's client knows.
	dockerHost  string
	streamNow   bool         // images of docker's daemon, though they may not be read
	directories []string     // that trees have besides those of images
	lowest      int          // how many layers images are opened with; 0: all
	config      *config.File // nil: it has not been read
	network     network
	indexes     indexSource
	life        *serve.Lifetime
	exact       bool // sizes in tables are numbers of bytes
	shown       shown
	umask       *uint32 // the user's; nil: that of the process is
	stdin       stdin
	adjust      func(*image.Options) // changes how images are opened, if not nil
}

// A shown is where progress is shown.
type shown struct {
	none   bool          // nobody waits for what would be shown
	parent *serve.Parent // shows it for this process, if not nil

	mu    sync.Mutex
	board *show.Board // nil: none was needed yet
}

// Display implements show.Console.
func (e *env) Display() show.Display {
	tty, ok := e.Terminal()
	if !ok || e.shown.none {
		return nil
	}
	if e.shown.parent != nil {
		return e.shown.parent
	}
	e.shown.mu.Lock()
	defer e.shown.mu.Unlock()
	if e.shown.board == nil {
		e.shown.board = show.NewBoard(tty, e.SetOutput)
	}
	e.shown.board.Open()
	return e.shown.board
}

// width returns how many columns of a terminal text for people may take; 0 is no
// limit, as stdout is none.
func (e *env) width() int {
	tty, ok := cli.Terminal(e.Raw)
	if !ok {
		return 0
	}
	return show.Columns(tty)
}

// pipeWidth is how many columns a table takes that goes to no terminal.
const pipeWidth = 80

// tableWidth returns how many columns a table may take, on a terminal or not. There
// $COLUMNS counts, as for other programs; 0 is no limit.
func (e *env) tableWidth() int {
	if _, ok := cli.Terminal(e.Raw); ok {
		return e.width()
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n >= 0 {
		return n
	}
	return pipeWidth
}

// printLine prints a sentence for people.
func (e *env) printLine(format string, args ...any) error {
	return e.Print(show.Wrap(e.width(), fmt.Sprintf(format, args...)) + "\n")
}

// clear removes progress that is shown.
func (e *env) clear() {
	e.shown.mu.Lock()
	board := e.shown.board
	e.shown.mu.Unlock()
	if board != nil {
		board.Close()
	}
}

func newEnv(stdout, stderr io.Writer) *env {
	e := &env{Env: cli.NewEnv(stdout, stderr), life: serve.NewLifetime(), stdin: stdin{file: os.Stdin}}
	e.Hint = hintFor
	return e
}

// A platform is the value of --platform. It is not checked but for being there: a
// script whose variable is empty must not get another machine's image.
type platform string

// String implements pflag.Value.
func (p *platform) String() string { return string(*p) }

// Type implements pflag.Value.
func (p *platform) Type() string { return "string" }

// Set implements pflag.Value.
func (p *platform) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("it is empty; a platform is such as linux/arm64")
	}
	*p = platform(s)
	return nil
}

// A pathFlag is the value of a flag that names a file or directory.
type pathFlag string

// String implements pflag.Value.
func (p *pathFlag) String() string { return string(*p) }

// Type implements pflag.Value.
func (p *pathFlag) Type() string { return cli.FileType }

// Set implements pflag.Value.
func (p *pathFlag) Set(s string) error {
	*p = pathFlag(expandHome(s))
	return nil
}

// A dirFlag is the value of a flag that names a directory. It is not empty, as that of a
// script is whose variable is not set: the directory would be another one.
type dirFlag struct{ pathFlag }

// Type implements pflag.Value.
func (d *dirFlag) Type() string { return cli.DirType }

// Set implements pflag.Value.
func (d *dirFlag) Set(s string) error {
	if s == "" {
		return errors.New("it is empty; leave the flag out for the usual directory")
	}
	return d.pathFlag.Set(s)
}

// expandHome replaces the ~/ that shells leave as it is behind a =.
func expandHome(s string) string {
	home, err := os.UserHomeDir()
	if rest, ok := strings.CutPrefix(s, "~/"); ok && err == nil {
		return filepath.Join(home, rest)
	}
	return s
}

// globalFlags are the flags that all commands take, in the order of the help.
func (e *env) globalFlags() []func(*pflag.FlagSet) {
	return []func(*pflag.FlagSet){e.cacheFlags, e.limits.flags, e.otherFlags}
}

func (e *env) cacheFlags(f *pflag.FlagSet) {
	e.cacheDir = dirFlag{pathFlag(expandHome(os.Getenv("IMGFS_CACHE_DIR")))}
	f.Var(&e.cacheDir, "cache-dir", "`DIR` where to keep layers and indexes (~/.cache/imgfs)")
	f.Var(&e.cacheSize, "cache-size", "`SIZE` how much to keep (10G, or 1/10 of the free disk)")
	cli.Note(f.Lookup("cache-dir"), cli.Variables, "IMGFS_CACHE_DIR")
	cli.Note(f.Lookup("cache-size"), cli.Variables, "IMGFS_CACHE_SIZE")
}

func (e *env) otherFlags(f *pflag.FlagSet) {
	f.BoolVar(&e.offline, "offline", false, "use only what is in the cache, never the network")
	f.Var((*platform)(&e.platform), "platform", "`P` os[(version)]/arch[/variant] (this machine's)")
	cli.Note(f.Lookup("platform"), cli.Words, "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x", "windows/amd64")
	f.Var(&e.tlsVerify, "tls-verify", "`BOOL` true: https and a trusted certificate; false: any")
	f.Lookup("tls-verify").NoOptDefVal = "true"
	e.indexes.flags(f)
	f.Var((*pathFlag)(&e.authfile), "authfile", "`FILE` credentials (where podman and docker look)")
	cli.Note(f.Lookup("authfile"), cli.Variables, "REGISTRY_AUTH_FILE")
	f.StringVar(&e.dockerHost, "docker-host", "", "`URL` docker's daemon, unix:///PATH (as docker has it)")
	cli.Note(f.Lookup("docker-host"), cli.Variables, "DOCKER_HOST")
	f.BoolVar(&e.network.allowPrivate, "allow-private", false, "registries may lead to private addresses, or here")
	f.BoolVarP(&e.Quiet, "quiet", "q", false, "say nothing but errors")
	f.BoolVarP(&e.Verbose, "verbose", "v", false, "say what is asked of the registry")
}

// bytesFlag declares the flag for exact sizes in tables.
func (e *env) bytesFlag(f *pflag.FlagSet) {
	f.BoolVar(&e.exact, "bytes", false, "sizes as numbers of bytes")
}

// size writes a number of bytes for a table.
func (e *env) size(n int64) string { return sizeText(n, e.exact) }
