// Package localname finds out what a path without a transport means as the name of
// an image: which transport reads what lies there.
//
//	loc, ok, err := localname.Find(ctx, "./image.tar:app:v1")
//	// docker-archive:/home/user/image.tar:app:v1
//
// A name that is a reference stays one: "fedora" is the image of a registry also
// where there is a directory fedora. Only a file whose name ends as those of
// archives do, such as image.tar, goes before a repository of that name.
//
// What is looked at is bounded: names in one directory, and the headers of a tar.
package localname

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
)

// An Error says that a name is a path, and no image lies there.
type Error struct {
	Path string // as it was given
	Err  error
	// Hint is what to type, or "".
	Hint string
}

// Error implements error.
func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Find returns the location of the image that a name means if it is a path, which
// may have :TAG or @DIGEST behind it as with a transport. ok is false if the name is
// none: it has a transport, or is a reference, or nothing is there. An error is an
// *Error, or that of ctx.
func Find(ctx context.Context, name string) (loc remote.Location, ok bool, err error) {
	if !isPath(name) {
		return remote.Location{}, false, nil
	}
	loc, err = At(ctx, name)
	return loc, err == nil, err
}

// IsPath reports whether a name begins as only paths do: with /, ., or ~.
func IsPath(name string) bool { return name != "" && strings.Contains("/.~", name[:1]) }

// isPath reports whether a name is to be taken for a path.
func isPath(name string) bool {
	if IsPath(name) {
		return true
	}
	loc, err := remote.ParseLocation(name)
	if err != nil || loc.Transport != remote.TransportDocker || strings.HasPrefix(name, "docker://") {
		return false
	}
	path, _, err := split(name)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	_, err = remote.ParseReference(name)
	return err != nil || info.Mode().IsRegular() && hasArchiveName(path)
}

// hasArchiveName reports whether a file is called as archives are.
func hasArchiveName(path string) bool {
	for _, end := range []string{".tar", ".tgz", ".tzst", ".tbz2", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz", ".txz"} {
		if strings.HasSuffix(strings.ToLower(path), end) {
			return true
		}
	}
	return false
}

// split parts a path from the image that follows it. A path ends where it does behind
// a transport.
func split(name string) (path, image string, err error) {
	loc, err := remote.ParseLocation(remote.TransportOCI + ":" + name)
	return loc.Path, loc.Image, err
}

// At returns the location of the image at a path, which may have :TAG or @DIGEST
// behind it, whatever else the name could mean.
func At(ctx context.Context, name string) (remote.Location, error) {
	loc, err := at(ctx, name)
	var failed *Error
	if err == nil || ctx.Err() != nil || errors.As(err, &failed) {
		return loc, err
	}
	return loc, &Error{Path: name, Err: err}
}

func at(ctx context.Context, name string) (loc remote.Location, err error) {
	full := expand(name)
	path, image, err := split(full)
	if err != nil {
		return loc, err
	}
	info, err := os.Stat(path)
	if err != nil {
		if _, whole := os.Lstat(full); whole == nil && full != path {
			return loc, &Error{Path: name, Err: errors.New("the path of an image cannot have a colon in it"), Hint: "rename it, or make a symlink to it"}
		}
		return loc, reason(err)
	}
	loc = remote.Location{Path: absolute(path), Image: image}
	if info.IsDir() {
		loc.Transport = remote.TransportOCI
		return loc, lookInto(path)
	}
	loc.Transport, err = archiveOf(ctx, path, info, image)
	return loc, err
}

// reason takes the path out of an error of a system call.
func reason(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// expand replaces the ~/ that a shell has left because it was quoted.
func expand(name string) string {
	rest, ok := strings.CutPrefix(name, "~/")
	if _, err := os.Lstat("~"); !ok || err == nil {
		return name
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return name
	}
	return filepath.Join(home, rest)
}

// absolute returns the absolute path, if that has no colon where a location would
// end.
func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil || strings.Contains(abs, ":") {
		return path
	}
	return abs
}

// lookInto says what a directory is if it is no layout.
func lookInto(dir string) error {
	if isLayout(dir) {
		return nil
	}
	is := func(names ...string) bool {
		for _, n := range names {
			if !exists(filepath.Join(dir, n)) {
				return false
			}
		}
		return true
	}
	word := printable.Word(dir)
	no := func(hint, what string) error {
		return &Error{Path: dir, Err: fmt.Errorf("%w: it is %s", errNoImage, what), Hint: hint}
	}
	switch {
	case is("manifest.json", "version"):
		return no("skopeo copy "+printable.Word("dir:"+dir)+" oci:DIR", "a directory of skopeo's transport dir:, which imgfs does not read")
	case is("manifest.json"):
		return no("tar -C "+word+" -cf image.tar . && imgfs ls image.tar", "an unpacked archive of docker save, which imgfs reads in one file")
	case is("config.json", "rootfs"):
		return no("what is in it can be used as it is", "a bundle of a container")
	case is("overlay-images"), is("vfs-images"), is("overlay-layers"):
		return no("podman save -o image.tar IMAGE && imgfs ls image.tar", "the storage of podman, which imgfs does not read")
	case is("image", "containers"):
		return no("docker save -o image.tar IMAGE && imgfs ls image.tar", "the storage of docker, which imgfs does not read")
	case is("Dockerfile"), is("Containerfile"):
		return no("podman build -t NAME "+word+" && podman save -o image.tar NAME && imgfs ls image.tar", "what an image can be built from")
	case rootNames(func(name string) bool { return is(name) }) >= 2:
		return no("what is in it can be used as it is", "a root file system")
	}
	if above := layoutAbove(dir); above != "" {
		return no(printable.Word("oci:"+above), "a part of the image layout "+above)
	}
	return lookBelow(dir)
}

// errNoImage says that a path is no image.
var errNoImage = errors.New("not an image")

// lookBelow says of a directory that is nothing by itself what lies in it.
func lookBelow(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return reason(err)
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxNames) // what cannot be read is not there
	if len(names) == 0 {
		return &Error{Path: dir, Err: fmt.Errorf("%w: the directory is empty", errNoImage)}
	}
	for _, name := range names {
		if below := filepath.Join(dir, name); isLayout(below) || hasArchiveName(name) {
			return &Error{Path: dir, Err: fmt.Errorf("%w: there is no index.json in it", errNoImage), Hint: "there is one in " + printable.Word(below)}
		}
	}
	return &Error{Path: dir, Err: fmt.Errorf("%w: there is no index.json in it", errNoImage)}
}

// maxNames is how many names of a directory are looked at.
const maxNames = 1000

func isLayout(dir string) bool {
	return exists(filepath.Join(dir, "index.json")) || exists(filepath.Join(dir, "oci-layout"))
}

// layoutAbove returns the layout that a path is in as its blobs, or its index; or "".
func layoutAbove(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	for range 3 { // LAYOUT/blobs/sha256/…
		up, name := filepath.Split(path)
		up = filepath.Clean(up)
		if (name == "blobs" || name == "index.json" || name == "oci-layout") && exists(filepath.Join(up, "blobs")) && isLayout(up) {
			return up
		}
		path = up
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// rootNames counts the names of directories that most root file systems have.
func rootNames(has func(name string) bool) int {
	n := 0
	for _, name := range []string{"bin", "dev", "etc", "lib", "proc", "sbin", "usr", "var"} {
		if has(name) {
			n++
		}
	}
	return n
}
