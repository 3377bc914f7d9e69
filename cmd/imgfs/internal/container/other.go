//go:build !linux

package container

import (
	"context"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// FindUsers returns nil.
func FindUsers() *Users { return nil }

// Run fails with fusefs.ErrSystem.
func (*Container) Run(context.Context) (code int, err error) { return 0, fusefs.ErrSystem }

// Supervise fails: there is nothing to supervise.
func Supervise() int { return ExitFailed }
