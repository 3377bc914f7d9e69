//go:build !linux

package fusefs

import (
	"context"
	"os"

	"github.com/imgfs/imgfs/fs"
)

// fsSubtype is what mounts are told by.
const fsSubtype = "imgfs"

// A Server would serve a mounted tree: there is none.
type Server struct{}

// A Target would be a directory that can be mounted on: there is none.
type Target struct{}

// Check fails with ErrSystem.
func Check(_ context.Context, dir string, _ *Options) (*Target, error) {
	return nil, mountError("mount", dir, ErrSystem)
}

// Mount fails with ErrSystem.
func Mount(_ context.Context, dir string, _ *fs.Tree, _ *Options) (*Server, error) {
	return nil, mountError("mount", dir, ErrSystem)
}

// Unmount fails with ErrSystem.
func Unmount(_ context.Context, dir string) error { return mountError("unmount", dir, ErrSystem) }

// UnmountLazy fails with ErrSystem.
func UnmountLazy(_ context.Context, dir string) error { return mountError("unmount", dir, ErrSystem) }

// RemoveDead removes nothing.
func RemoveDead(context.Context, string) ([]MountPoint, error) { return nil, nil }

// Mounts returns none.
func Mounts() ([]MountPoint, error) { return nil, nil }

// Servers returns none.
func Servers(context.Context) map[string]int { return nil }

// MountOf fails with ErrSystem.
func MountOf(context.Context, string) (MountPoint, error) { return MountPoint{}, ErrSystem }

// InUserNamespace returns false.
func InUserNamespace() bool { return false }

// BarredBy returns none.
func BarredBy(string) (MountPoint, bool) { return MountPoint{}, false }

// HintBarred is the hint for who is not let into a mount.
const HintBarred = ""

// HintNoAnswer returns no hint.
func HintNoAnswer(string) string { return "" }

// Control fails with ErrSystem.
func (MountPoint) Control(context.Context, string) ([]byte, error) { return nil, ErrSystem }

// Dir returns "".
func (*Target) Dir() string { return "" }

// Close does nothing.
func (*Target) Close() {}

// Mount fails with ErrSystem.
func (*Target) Mount(context.Context, *fs.Tree, *Options) (*Server, error) { return nil, ErrSystem }

// Attach fails with ErrSystem.
func (*Target) Attach(context.Context, *Options) (*Server, error) { return nil, ErrSystem }

// Show fails with ErrSystem.
func (*Server) Show(*fs.Tree, *Options) error { return ErrSystem }

// Refuse does nothing.
func (*Server) Refuse() {}

// FastPaths returns none.
func (*Server) FastPaths() []FastPath { return nil }

// Wait returns.
func (*Server) Wait() {}

// Orphaned returns nil.
func (*Server) Orphaned() <-chan struct{} { return nil }

// Displaced returns nil.
func (*Server) Displaced() <-chan struct{} { return nil }

// Unmount fails with ErrSystem.
func (*Server) Unmount(context.Context) error { return ErrSystem }

// Detach fails with ErrSystem.
func (*Server) Detach(context.Context) error { return ErrSystem }

// DetachAll fails with ErrSystem.
func (*Server) DetachAll(context.Context) error { return ErrSystem }

// DropPrivileges fails with ErrSystem.
func (*Server) DropPrivileges() error { return ErrSystem }

// An Apart would be a mount that others serve: there is none.
type Apart struct {
	Device *os.File
	Number string
	Proc   *os.File
}

// AttachApart fails with ErrSystem.
func (*Target) AttachApart(context.Context, *Options) (*Apart, error) { return nil, ErrSystem }

// Close does nothing.
func (*Apart) Close() {}

// Detach fails with ErrSystem.
func (*Apart) Detach(context.Context) error { return ErrSystem }

// ServeApart fails with ErrSystem.
func ServeApart(*Apart, *fs.Tree, *Options) (*Server, error) { return nil, ErrSystem }

// A Kept would be what outlives a server: there is none.
type Kept struct{}

// NewKept fails with ErrSystem.
func NewKept() (*Kept, error) { return nil, ErrSystem }

// OpenKept fails with ErrSystem.
func OpenKept(device, state *os.File) (*Kept, error) { return nil, ErrSystem }

// Files returns none.
func (*Kept) Files() (device, state *os.File) { return nil, nil }

// Close does nothing.
func (*Kept) Close() {}

// Gone returns true.
func (*Kept) Gone() bool { return true }

// Dir returns "".
func (*Kept) Dir() string { return "" }

// Device returns "".
func (*Kept) Device() string { return "" }

// SetNote fails with ErrSystem.
func (*Kept) SetNote([]byte) error { return ErrSystem }

// Note returns nil.
func (*Kept) Note() []byte { return nil }

// A Prepared would be a server that is ready to go on: there is none.
type Prepared struct{}

// Prepare fails with ErrSystem.
func Prepare(context.Context, *Kept, *fs.Tree, *Options) (*Prepared, error) { return nil, ErrSystem }

// Start fails with ErrSystem.
func (*Prepared) Start(int) (*Server, error) { return nil, ErrSystem }

// Close does nothing.
func (*Prepared) Close() {}

// Recovery returns "".
func (*Server) Recovery() string { return "" }

// Refused returns none.
func (*Server) Refused() []string { return nil }
