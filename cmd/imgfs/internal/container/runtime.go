package container

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/printable"
)

// A Kind is how a runtime is to be spoken to.
type Kind string

// The kinds of runtimes.
const (
	Runc  Kind = "runc"
	Crun  Kind = "crun"
	Bwrap Kind = "bwrap"
)

// A Runtime is a program that makes containers.
type Runtime struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"` // absolute
}

// Kinds are the kinds of runtimes, the best one first. crun starts a container sooner than
// runc; bwrap knows less of what a container is.
var Kinds = []Kind{Crun, Runc, Bwrap}

// FindRuntime returns the runtime of a name or path, whose last element says which kind
// it is, or for "" the best one that is in PATH.
func FindRuntime(name string) (Runtime, error) {
	if name != "" {
		return namedRuntime(name)
	}
	for _, kind := range Kinds {
		path, err := exec.LookPath(string(kind))
		if err == nil && filepath.IsAbs(path) {
			return Runtime{kind, path}, nil
		}
	}
	return Runtime{}, cli.WithHint(errors.New("there is no runtime in PATH: neither crun nor runc, nor bwrap"),
		"install one of the packages crun, runc, bubblewrap; or imgfs mount IMAGE, and what runs a tree, such as chroot")
}

func namedRuntime(name string) (Runtime, error) {
	kind, ok := kindOf(filepath.Base(name))
	if !ok {
		return Runtime{}, cli.Usagef("--runtime %s: it is none of crun, runc and bwrap, nor a path to one of them", printable.Name(name))
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return Runtime{}, cli.WithHint(fmt.Errorf("--runtime %s: %w", printable.Name(name), errors.Unwrap(err)), "install it, or leave the flag out for the one there is")
	}
	return Runtime{kind, path}, nil
}

// kindOf returns the kind of a program by its name: crun-vm and runc.real are some too.
func kindOf(base string) (Kind, bool) {
	for _, kind := range Kinds {
		if strings.HasPrefix(base, string(kind)) {
			return kind, true
		}
	}
	return "", false
}
