package packages

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// installedStates are the states in which the files of a package are there, deb's third
// word of Status: dpkg(1), "Package states".
var installedStates = []string{"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}

// readDpkg reads dpkg's status file.
func readDpkg(ctx context.Context, _ *fs.Tree, _ string, n fs.Node) ([]Package, error) {
	return readStanzas(ctx, n, nil, false)
}

// readDpkgDir reads a directory in which each package has a file with its stanza. All of
// them are installed, so Status may be missing. Files with checksums lie beside them.
func readDpkgDir(ctx context.Context, _ *fs.Tree, _ string, n fs.Node) ([]Package, error) {
	if n.Mode()&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("%w: not a directory", ErrFormat)
	}
	var all []Package
	for name, child := range n.Children() {
		if child.Mode()&unix.S_IFMT != unix.S_IFREG || path.Ext(name) == ".md5sums" {
			continue
		}
		var err error
		if all, err = readStanzas(ctx, child, all, true); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

// A stanza is what is wanted of the fields of a package.
type stanza struct {
	Package
	status string
	fields int
}

// readStanzas adds the packages of a file of stanzas: fields, each in a line NAME: VALUE
// with further lines that begin with space; an empty line ends a stanza (deb-control(5)).
func readStanzas(ctx context.Context, n fs.Node, all []Package, installed bool) ([]Package, error) {
	var s stanza
	end := func() error {
		done := s
		s = stanza{}
		words := strings.Fields(done.status)
		switch {
		case done.fields == 0:
			return nil
		case done.Name == "":
			return fmt.Errorf("%w: no Package in the stanza that ends here", ErrFormat)
		case done.status == "" && !installed, done.status != "" && len(words) != 3:
			return fmt.Errorf("%w: the package %s has no valid Status", ErrFormat, done.Name)
		case done.status != "" && !slices.Contains(installedStates, words[2]):
			return nil
		case done.Version == "":
			return fmt.Errorf("%w: the package %s has no Version", ErrFormat, done.Name)
		}
		var err error
		all, err = add(all, done.Package)
		return err
	}
	err := eachLine(ctx, n, func(_ int, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return end()
		}
		if line[0] == ' ' || line[0] == '\t' {
			if s.fields == 0 {
				return fmt.Errorf("%w: a line that goes on from nothing", ErrFormat)
			}
			return nil
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t\x00") {
			return fmt.Errorf("%w: no field", ErrFormat)
		}
		s.fields++
		text := func() string { return string(bytes.TrimSpace(value)) }
		switch strings.ToLower(string(name[:min(len(name), 16)])) {
		case "package":
			s.Name = text()
		case "version":
			s.Version = text()
		case "architecture":
			s.Arch = text()
		case "status":
			s.status = text()
		}
		return nil
	})
	if err == nil {
		err = end()
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}
