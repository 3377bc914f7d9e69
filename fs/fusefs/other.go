//go:build !linux

package fusefs

import (
	"context"

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

// Mounts returns none.
func Mounts() ([]MountPoint, error) { return nil, nil }

// MountOf fails with ErrSystem.
func MountOf(context.Context, string) (MountPoint, error) { return MountPoint{}, ErrSystem }

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

// FastPaths returns none.
func (*Server) FastPaths() []FastPath { return nil }

// Wait returns.
func (*Server) Wait() {}

// Orphaned returns nil.
func (*Server) Orphaned() <-chan struct{} { return nil }

// Unmount fails with ErrSystem.
func (*Server) Unmount(context.Context) error { return ErrSystem }

// Detach fails with ErrSystem.
func (*Server) Detach(context.Context) error { return ErrSystem }

// DetachAll fails with ErrSystem.
func (*Server) DetachAll(context.Context) error { return ErrSystem }

// DropPrivileges fails with ErrSystem.
func (*Server) DropPrivileges() error { return ErrSystem }
