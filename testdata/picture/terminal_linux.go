package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// onTerminal runs a command on a terminal of so many columns, and returns what it
// prints there.
func onTerminal(ctx context.Context, columns int, env []string, words ...string) (string, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: uint16(columns)})
	}
	if err != nil {
		return "", fmt.Errorf("making a terminal: %w", err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	var shown strings.Builder
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(&shown, master) // it ends with EIO when all have closed the terminal
	}()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = tty, tty, tty, env
	err = cmd.Run()
	tty.Close()
	<-over
	text := strings.ReplaceAll(shown.String(), "\r\n", "\n")
	if err != nil {
		return text, fmt.Errorf("%s: %w\n%s", strings.Join(words, " "), err, text)
	}
	if strings.ContainsAny(text, "\x1b\r") {
		return text, errors.New(strings.Join(words, " ") + ": it moves the cursor, which the picture cannot show")
	}
	return text, nil
}
