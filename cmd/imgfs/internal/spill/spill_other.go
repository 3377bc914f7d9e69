//go:build !linux

package spill

import (
	"context"
	"errors"
)

// An Arena gives out memory. There is none on this system.
type Arena struct{}

// New returns an error: there is none on this system.
func New(File, int64) (*Arena, error) { return nil, errors.ErrUnsupported }

// Alloc returns nil.
func (*Arena) Alloc(int) []byte { return nil }

// Keep does nothing.
func (*Arena) Keep(context.Context) {}

// Check does nothing.
func (*Arena) Check() {}
