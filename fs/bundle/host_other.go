//go:build !linux

package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

// seccompProfile returns none: the profile is of a kernel.
func seccompProfile(*specs.Spec) (*specs.LinuxSeccomp, error) { return nil, nil }

func cgroupsAreUnified() bool { return true }

func emulates(string) bool { return false }

func emulatesAnything() bool { return false }
