package packages

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A Kind is the package manager that a database is of.
type Kind string

// The kinds.
const (
	Dpkg Kind = "dpkg"
	APK  Kind = "apk"
	RPM  Kind = "rpm"
)

// Kinds are all kinds.
var Kinds = []Kind{Dpkg, APK, RPM}

// A Package is a package that is installed. What a database says is not checked, and
// may be any bytes.
type Package struct {
	Name string
	// Version has all that the manager compares: of rpm it is [EPOCH:]VERSION-RELEASE.
	Version string
	Arch    string // "" if it has none, as rpm's gpg-pubkey
}

// A Database is a database in a tree.
type Database struct {
	Kind Kind
	Path string // of the file; of dpkg's status.d the directory
	// Packages are sorted by name, version and architecture.
	Packages []Package
	// Err says why the database could not be read. Packages are then empty.
	Err error
}

// The bounds of what is read of a database.
const (
	MaxSize     = 512 << 20 // bytes
	MaxPackages = 1 << 18
)

// Errors of databases, to be found with errors.Is.
var (
	// ErrFormat: the database is damaged, or is none.
	ErrFormat = errors.New("damaged package database")
	// ErrTooLarge: it has more bytes or packages than the bounds allow.
	ErrTooLarge = errors.New("package database too large")
	// ErrUnsupported: it has a format that is not read.
	ErrUnsupported = errors.New("format not supported")
)

// A place is where a database may lie.
type place struct {
	kind Kind
	path string
	read func(ctx context.Context, t *fs.Tree, path string, n fs.Node) ([]Package, error)
}

// places are all places, without a slash at their beginning.
var places = []place{
	{Dpkg, "/var/lib/dpkg/status", readDpkg},
	{Dpkg, "/var/lib/dpkg/status.d", readDpkgDir}, // distroless: a file a package
	{APK, "/lib/apk/db/installed", readAPK},
	{APK, "/usr/lib/apk/db/installed", readAPK},
	{RPM, "/var/lib/rpm/rpmdb.sqlite", readSQLite},
	{RPM, "/usr/lib/sysimage/rpm/rpmdb.sqlite", readSQLite},
	{RPM, "/usr/share/rpm/rpmdb.sqlite", readSQLite}, // rpm-ostree
	{RPM, "/var/lib/rpm/Packages.db", readNDB},
	{RPM, "/usr/lib/sysimage/rpm/Packages.db", readNDB},
	{RPM, "/var/lib/rpm/Packages", readBDB},
	{RPM, "/usr/lib/sysimage/rpm/Packages", readBDB},
}

// Read reads the databases of a tree. One that cannot be read is told in its Err. The
// error is that of ctx.
func Read(ctx context.Context, t *fs.Tree) ([]Database, error) {
	var all []Database
	seen := make(map[fs.Node]bool) // the same file by way of a symlink
	for _, p := range places {
		n, err := t.Lookup(p.path, true)
		if err != nil && errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err == nil && seen[n] {
			continue
		}
		db := Database{Kind: p.kind, Path: p.path}
		switch {
		case errors.Is(err, unix.ENOTDIR):
			continue
		case err != nil: // a loop of symlinks
			var looked *iofs.PathError
			if db.Err = err; errors.As(err, &looked) {
				db.Err = looked.Err
			}
		default:
			seen[n] = true
			db.Packages, db.Err = p.read(ctx, t, p.path, n)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if db.Err != nil {
			db.Packages = nil
		}
		slices.SortFunc(db.Packages, comparePackages)
		all = append(all, db)
	}
	return all, nil
}

func comparePackages(a, b Package) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if c := strings.Compare(a.Version, b.Version); c != 0 {
		return c
	}
	return strings.Compare(a.Arch, b.Arch)
}

// checkFile refuses what is no regular file, or is too large.
func checkFile(n fs.Node) error {
	switch {
	case n.Mode()&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: not a regular file", ErrFormat)
	case n.Attr().Size > MaxSize:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, n.Attr().Size)
	}
	return nil
}

// add appends a package to those that were read, if there are not too many.
func add(all []Package, p Package) ([]Package, error) {
	if len(all) >= MaxPackages {
		return nil, fmt.Errorf("%w: more than %d packages", ErrTooLarge, MaxPackages)
	}
	return append(all, p), nil
}
