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
	"github.com/imgfs/imgfs/remote/internal/kindof"
	"github.com/imgfs/imgfs/remote/printable"
)

// An Error says that a name is a path, and no image lies there.
type Error struct {
	Path string // as it was given
	Err  error
	// Hint is what to type, or "".
	Hint string
	// Dir says that a directory is there.
	Dir bool
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
		if trimmed := strings.TrimSpace(name); trimmed != name && exists(strings.TrimSpace(path)) {
			return loc, &Error{Path: name, Err: reason(err), Hint: "without the space: " + printable.Word(trimmed)}
		}
		return loc, reason(err)
	}
	loc = remote.Location{Transport: remote.TransportOCI, Path: path, Image: image}
	if info.IsDir() {
		if !isLayout(path) {
			return loc, noImage(ctx, loc)
		}
		loc.Path = absolute(path)
		return loc, nil
	}
	if above := layoutAbove(path); above != "" {
		return loc, partOf(path, above)
	}
	if !info.Mode().IsRegular() {
		return loc, &Error{Path: path, Err: fmt.Errorf("%w: it is no regular file, so that it must be said which kind of archive it is", errNoImage),
			Hint: printable.Word("docker-archive:"+path) + " or " + printable.Word("oci-archive:"+path)}
	}
	if f, err := os.Open(path); err != nil {
		return loc, reason(err)
	} else {
		f.Close()
	}
	err = kindof.Explain(ctx, loc, errNoImage)
	if kind := (*remote.KindError)(nil); errors.As(err, &kind) && kind.Instead != nil {
		return remote.Location{Transport: kind.Instead.Transport, Path: absolute(path), Image: image}, nil
	}
	return loc, noImage(ctx, loc)
}

// errNoImage says that a path is no image.
var errNoImage = errors.New("not an image")

// noImage says what is at a place that no transport reads.
func noImage(ctx context.Context, loc remote.Location) error {
	if above := layoutAbove(loc.Path); above != "" {
		return partOf(loc.Path, above)
	}
	failed := &Error{Path: loc.Path, Err: fmt.Errorf("%w: there is no index.json in it", errNoImage)}
	if info, err := os.Stat(loc.Path); err == nil && info.IsDir() {
		failed.Dir = true
		d, err := os.Open(loc.Path)
		if err != nil {
			return reason(err)
		}
		d.Close()
	}
	err := kindof.Explain(ctx, loc, errNoImage)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if kind := (*remote.KindError)(nil); errors.As(err, &kind) {
		failed.Err, failed.Hint = says(kind.Found), kind.Command
		if kind.Instead != nil {
			failed.Hint = printable.Word(kind.Instead.String())
		}
	}
	if hint := recipe(loc.Path); hint != "" {
		failed.Err, failed.Hint = fmt.Errorf("%w: an image can be built from it", errNoImage), hint
	}
	return failed
}

// says returns the error for what is at a path, in words.
func says(found string) error {
	switch {
	case found == "a file":
		found = "not a tar"
	case strings.Contains(found, "no image"):
		return fmt.Errorf("it is %s", found)
	}
	return fmt.Errorf("%w: it is %s", errNoImage, found)
}

// partOf says that a path is a part of a layout.
func partOf(path, layout string) error {
	return &Error{Path: path, Err: fmt.Errorf("%w: it is a part of the image layout %s", errNoImage, layout), Hint: printable.Word("oci:" + layout)}
}

// recipe returns how an image is built of what is at a path, or "".
func recipe(path string) string {
	for _, name := range []string{"Dockerfile", "Containerfile"} {
		switch {
		case exists(filepath.Join(path, name)):
			return "podman build -t NAME " + printable.Word(path) + " && podman save -o image.tar NAME && imgfs ls image.tar"
		case strings.HasPrefix(filepath.Base(path), name):
			return "podman build -t NAME -f " + printable.Word(path) + " && podman save -o image.tar NAME && imgfs ls image.tar"
		}
	}
	return ""
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
