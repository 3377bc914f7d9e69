package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"golang.org/x/sys/unix"
)

// A stdin is standard input, from which one image of a command can come.
type stdin struct {
	file *os.File
	used bool
}

// take returns standard input for an image. Closing it leaves the descriptor 0 open,
// which must not become that of another file.
func (s *stdin) take() (io.ReadCloser, error) {
	if s.used {
		err := errors.New("standard input has been read: only one image of a command can come from there")
		return nil, cli.WithHint(err, "put the archive into a file, and name that")
	}
	if _, ok := cli.Terminal(s.file); ok {
		return nil, cli.WithHint(errors.New("standard input is a terminal, and no archive"), "docker save NAME | imgfs ls -; a file of that name is ./-")
	}
	fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	s.used = true
	return os.NewFile(uintptr(fd), "standard input"), nil
}
