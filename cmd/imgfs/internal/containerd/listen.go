package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// DefaultAddress is where containerd finds the snapshotter, and DefaultRoot where that keeps
// its files: containerd 1.6 measures the disk at this path.
const (
	DefaultAddress = "/run/imgfs/snapshotter.sock"
	DefaultRoot    = "/var/lib/containerd/io.containerd.snapshotter.v1.imgfs"
)

// maxAddress is how long the path of a socket may be: see unix(7).
const maxAddress = 107

// Listen returns the socket that the service manager has opened for this process
// (LISTEN_FDS), or else makes one at an address that nobody but this user may use. What a
// process that was killed has left there is replaced; where one answers it is an error.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	came, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	switch {
	case len(came) == 1 && came[0] != nil:
		return came[0], nil
	case len(came) > 0:
		return nil, fmt.Errorf("the service manager has opened %d sockets: one stream socket is needed", len(came))
	}
	return ListenAt(ctx, address)
}

// ListenAt makes a socket at an address that nobody but this user may use, as Listen does.
func ListenAt(ctx context.Context, address string) (net.Listener, error) {
	address, err := filepath.Abs(address)
	if err != nil {
		return nil, err
	}
	if len(address) > maxAddress {
		return nil, tooLong(address)
	}
	if err := os.MkdirAll(filepath.Dir(address), 0o700); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, address); err != nil {
		return nil, err
	}
	// The mode of a new socket is what the mask leaves, and nobody else is to connect to it
	// before it has another one.
	mask := unix.Umask(0o177)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", address)
	unix.Umask(mask)
	return l, err
}

func tooLong(address string) error {
	return fmt.Errorf("socket %s: its path has %d bytes, and %d are possible", printable.Name(address), len(address), maxAddress)
}

// removeStale removes a socket that nobody listens on.
func removeStale(ctx context.Context, address string) error {
	st, err := os.Lstat(address)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is there, and is no socket", printable.Name(address))
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", address)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process listens on %s", printable.Name(address))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(address)
}
