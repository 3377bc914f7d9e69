// Command picture draws the terminal in README.md: it packs the sources of the Go
// release in use as two images, serves them from a registry on loopback, runs
// commands with the imgfs that its argument names, and draws what they print.
//
//	go run ./testdata/picture -o docs/imgfs.svg bin/imgfs
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

const (
	columns = 84
	prompt  = "$ "
	// shownHost stands for the registry, whose port is another one each time.
	shownHost = "localhost:5000"
)

// commands are what is typed, HOST for the registry.
var commands = []string{
	"imgfs mount -q HOST/go:1.26 ~/go",
	"grep -rl NewReaderDict ~/go/src/compress",
	"imgfs umount ~/go",
	"imgfs find HOST/go:1.26 -name '*.s' -size +60k",
	"imgfs cp HOST/go:1.26:/src/fmt/print.go .",
	"imgfs diff HOST/go:1.26 HOST/go:1.27",
	"imgfs du --layers HOST/go:1.27",
}

func main() {
	out := flag.String("o", "docs/imgfs.svg", "the `file` to write")
	screen := flag.String("explore", "", "the `file` for the screen of imgfs explore; none without it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *out, *screen, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, screen string, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: picture [-o FILE] [-explore FILE] IMGFS")
	}
	imgfs, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp("", "imgfs-picture-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	registry := registrytest.New(nil, nil)
	defer registry.Close()
	if err := pushImages(registry, home); err != nil {
		return err
	}
	p := &picture{ctx: ctx, host: registry.Host(), home: home}
	p.env = append(os.Environ(), "HOME="+home, "PATH="+filepath.Dir(imgfs)+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=dumb",
		"IMGFS_CACHE_DIR="+filepath.Join(home, "cache"), "IMGFS_CONFIG=")
	// The pictured commands are those of a second day: the layers have been read.
	for _, tag := range []string{"1.26", "1.27"} {
		if _, err := p.sh("imgfs -q index HOST/go:" + tag + " >/dev/null"); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(home, "go"), 0o755); err != nil {
		return err
	}
	lines, err := p.lines()
	if err != nil {
		_, ended := p.sh("imgfs umount ~/go 2>/dev/null || true")
		return errors.Join(err, ended)
	}
	if err := os.WriteFile(out, []byte(svg(lines, columns)), 0o644); err != nil || screen == "" {
		return err
	}
	rows, err := p.explore()
	if err != nil {
		return err
	}
	return os.WriteFile(screen, []byte(screenSVG(rows, columns)), 0o644)
}

// A picture is a shell with a registry.
type picture struct {
	ctx  context.Context
	host string
	home string
	env  []string
}

// lines runs all commands and returns what the terminal shows.
func (p *picture) lines() ([]line, error) {
	var lines []line
	for _, c := range commands {
		lines = append(lines, line{prompt + strings.ReplaceAll(c, "HOST", shownHost), true})
		text, err := p.sh(c)
		if err != nil {
			return nil, err
		}
		text = strings.ReplaceAll(text, p.host, shownHost)
		text = strings.ReplaceAll(text, p.home, "~")
		for l := range strings.Lines(text) {
			rest := []rune(strings.TrimRight(l, "\n"))
			for len(rest) > columns { // as a terminal goes on in the next line
				lines = append(lines, line{string(rest[:columns]), false})
				rest = rest[columns:]
			}
			lines = append(lines, line{string(rest), false})
		}
	}
	return lines, nil
}

// sh runs a command of the picture. That diff finds something is no error.
func (p *picture) sh(command string) (string, error) {
	command = strings.ReplaceAll(command, "HOST", p.host)
	if strings.HasPrefix(command, "imgfs diff ") {
		command += " || [ $? = 1 ]"
	}
	return onTerminal(p.ctx, columns, p.env, "sh", "-c", "cd && "+command)
}
