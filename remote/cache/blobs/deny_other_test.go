//go:build !linux

package blobs

import "errors"

// deny fails: only Linux has seccomp.
func deny([]string) error { return errors.ErrUnsupported }
