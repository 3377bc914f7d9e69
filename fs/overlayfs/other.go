//go:build !linux

package overlayfs

import (
	"context"
	"os"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// An Upper would be a directory that takes what is written: there is none.
type Upper struct{}

// A Mount would be a mounted overlay: there is none.
type Mount struct{}

// Open fails with [fusefs.ErrSystem].
func Open(_ context.Context, dir string) (*Upper, error) {
	return nil, overlayError(dir, fusefs.ErrSystem)
}

// Check fails with [fusefs.ErrSystem].
func (*Upper) Check(context.Context, string, *Options) error { return fusefs.ErrSystem }

// Mount fails with [fusefs.ErrSystem].
func (*Upper) Mount(context.Context, string, string, *Options) (*Mount, error) {
	return nil, fusefs.ErrSystem
}

// Dir returns "".
func (*Upper) Dir() string { return "" }

// Image returns nothing.
func (*Upper) Image() (name, manifest string) { return "", "" }

// Lock returns nil.
func (*Upper) Lock() *os.File { return nil }

// Reopen fails with [fusefs.ErrSystem].
func Reopen(_ []byte, _ *os.File) (*Upper, *Mount, error) { return nil, nil, fusefs.ErrSystem }

// Close does nothing.
func (*Upper) Close() {}

// Describe fails with [fusefs.ErrSystem].
func (*Mount) Describe(*Upper) ([]byte, error) { return nil, fusefs.ErrSystem }

// Dir returns "".
func (*Mount) Dir() string { return "" }

// Kind returns Auto.
func (*Mount) Kind() Kind { return Auto }

// Done returns nil.
func (*Mount) Done() <-chan struct{} { return nil }

// Unmount fails with [fusefs.ErrSystem].
func (*Mount) Unmount(context.Context, bool) error { return fusefs.ErrSystem }

// Abandon does nothing.
func (*Mount) Abandon() {}
