// Package kindof says what a file or directory is that a local source cannot read:
// an image of another transport, something that holds no image, or no archive.
package kindof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/tarball"
	"github.com/imgfs/imgfs/remote/magic"
	"github.com/imgfs/imgfs/remote/printable"
)

// wanted is what each transport reads.
var wanted = map[string]string{
	remote.TransportOCI:           "a directory with an OCI image layout",
	remote.TransportOCIArchive:    "a tar of an OCI image layout",
	remote.TransportDockerArchive: "an archive as docker save writes it",
	remote.TransportDockerDaemon:  "an archive as docker save writes it",
	remote.TransportStdin:         "an archive as docker save writes it, or a tar of an OCI image layout",
}

// Open opens the archive of a location. The errors are remote.ErrNotFound,
// ErrUnavailable, ErrUnsupported and ErrTooBig, wrapped, or that of ctx; that of a
// file of the wrong kind is explained.
func Open(ctx context.Context, loc remote.Location, opts *remote.ArchiveOptions) (*tarball.Archive, error) {
	a, err := tarball.Open(ctx, loc.Path, opts)
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, remote.ErrTooBig), errors.Is(err, remote.ErrUnavailable):
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", remote.ErrNotFound, err)
	case errors.As(err, new(*fs.PathError)):
		return nil, fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	wrapped := fmt.Errorf("%w: %w", remote.ErrUnsupported, err)
	if errors.Is(err, tarball.ErrNotArchive) && opts.From == nil {
		return nil, Explain(ctx, loc, wrapped)
	}
	return nil, wrapped
}

// Explain returns err as a *remote.KindError, if it can be told what is at a place,
// and that is not what the place's transport reads; and otherwise err. It is for
// errors of opening a file or directory of the wrong kind.
func Explain(ctx context.Context, loc remote.Location, err error) error {
	info, statErr := os.Stat(loc.Path)
	if statErr != nil {
		return err
	}
	var k *remote.KindError
	switch {
	case info.IsDir():
		k = directory(loc)
	case info.Mode().IsRegular():
		if k = file(ctx, loc, info.Size()); k == nil && loc.Transport == remote.TransportOCI {
			k = &remote.KindError{Found: "a file"}
		}
	case loc.Transport == remote.TransportOCI:
		k = &remote.KindError{Found: "neither a file nor a directory"}
	}
	if ctx.Err() != nil {
		return err
	}
	return choose(loc, k, err)
}

// choose returns k, or err if k says no more.
func choose(loc remote.Location, k *remote.KindError, err error) error {
	if k == nil || k.Instead != nil && *k.Instead == loc {
		return err
	}
	k.Wanted = wanted[loc.Transport]
	return k
}

// chooseUnnamed is choose for what lies at no name: no command can be given one, and
// what a daemon sends is not named otherwise.
func chooseUnnamed(loc remote.Location, k *remote.KindError, err error) error {
	if k != nil {
		k.Command = ""
	}
	if k != nil && !loc.Stdin() {
		k.Instead = nil
	}
	return choose(loc, k, err)
}

// ExplainArchive is Explain for an archive that has been opened.
func ExplainArchive(loc remote.Location, a *tarball.Archive, err error) error {
	names := slices.Collect(a.Names())
	if !a.Named() {
		return chooseUnnamed(loc, members(loc, names), err)
	}
	if info, statErr := os.Stat(loc.Path); len(names) == 0 && statErr == nil && info.Mode().IsRegular() {
		// Zeros are the end of a tar, and the beginning of many other things.
		if k := file(context.Background(), loc, info.Size()); k != nil {
			return choose(loc, k, err)
		}
	}
	return choose(loc, members(loc, names), err)
}

// instead names what is at a place by another transport. The image is the same for
// layouts, and has another name in docker's archives.
func instead(loc remote.Location, transport string) *remote.Location {
	to := remote.Location{Transport: transport, Path: loc.Path}
	if loc.Transport != remote.TransportDockerArchive && transport != remote.TransportDockerArchive {
		to.Image = loc.Image
	}
	return &to
}

// file says what a regular file is, nil if that is not known.
func file(ctx context.Context, loc remote.Location, size int64) *remote.KindError {
	if size == 0 {
		return &remote.KindError{Found: "an empty file"}
	}
	switch dir, base := filepath.Split(loc.Path); base {
	case ocispec.ImageIndexFile, ocispec.ImageLayoutFile:
		if _, err := os.Lstat(filepath.Join(dir, ocispec.ImageIndexFile)); err == nil {
			loc.Path = filepath.Clean(dir)
			return &remote.KindError{Found: "a file of an OCI image layout", Instead: instead(loc, remote.TransportOCI)}
		}
	}
	names, format, err := tarball.Look(ctx, loc.Path)
	switch {
	case err != nil:
		return nil
	case names != nil:
		return members(loc, names)
	case format == magic.Format{}:
		return nil
	case format.Compression:
		return &remote.KindError{Found: format.String(), Command: unpacker(format.Name, loc.Path)}
	}
	return &remote.KindError{Found: format.String()}
}

// unpacker is the command that unpacks a file that is compressed, "" if there is no
// usual one.
func unpacker(format, path string) string {
	word := printable.Word(path)
	switch format {
	case "lzma":
		return "xz -dc < " + word + " > image.tar"
	case "lz4", "lzip", "lzop":
		return format + " -dc < " + word + " > image.tar"
	case "compress":
		return "gzip -dc < " + word + " > image.tar"
	}
	return ""
}

// members says what a tar with some members is, nil if it has none.
func members(loc remote.Location, names []string) *remote.KindError {
	has := func(name string) bool { return slices.Contains(names, name) }
	layout := has(ocispec.ImageIndexFile) || has(ocispec.ImageLayoutFile) || slices.ContainsFunc(names, isBlob)
	manifest := has("manifest.json")
	switch {
	case loc.Transport != remote.TransportOCIArchive && layout:
		return &remote.KindError{Found: "a tar of an OCI image layout", Instead: instead(loc, remote.TransportOCIArchive)}
	case manifest && has("version"):
		return &remote.KindError{Found: "a tar of a directory of skopeo's transport dir:"}
	case !layout && !manifest && has("repositories"):
		return &remote.KindError{Found: "an archive of docker save before Docker 1.10, without a manifest.json", Command: "docker load -i " + printable.Word(loc.Path)}
	case loc.Transport != remote.TransportDockerArchive && (manifest || slices.ContainsFunc(names, isDockerLayer)):
		return &remote.KindError{Found: "an archive as docker save writes it", Instead: instead(loc, remote.TransportDockerArchive)}
	case layout, manifest:
		return nil // it is what it should be, and something else is wrong
	case isRoot(names):
		return &remote.KindError{Found: "a tar of a root file system, as docker export writes it, which is no image",
			Command: "skopeo copy " + printable.Word("tarball:"+loc.Path) + " oci:image"}
	}
	for _, name := range names {
		switch top, base, ok := strings.Cut(name, "/"); {
		case !ok:
		case base == ocispec.ImageIndexFile, base == ocispec.ImageLayoutFile, base == "manifest.json":
			return &remote.KindError{Found: "a tar that has an image in its directory " + quoted(top) + " instead of at its top"}
		case base == "Chart.yaml":
			return &remote.KindError{Found: "a Helm chart"}
		}
	}
	if len(names) == 0 {
		return &remote.KindError{Found: "a tar with nothing in it"}
	}
	return &remote.KindError{Found: "a tar that holds no image, neither manifest.json nor index.json"}
}

// isDockerLayer tells whether a member is of the kind that docker save, or skopeo in
// its place, writes for each layer. They come before manifest.json, which may be out of
// sight.
func isDockerLayer(name string) bool {
	id, file, ok := strings.Cut(name, "/")
	if !ok {
		id, ok = strings.CutSuffix(name, ".tar")
		file = "layer.tar"
	}
	return ok && file == "layer.tar" && isHex(id)
}

// isBlob tells whether a member is one of a layout, which come before index.json.
func isBlob(name string) bool {
	id, ok := strings.CutPrefix(name, "blobs/sha256/")
	return ok && isHex(id)
}

// isHex tells whether a word is a SHA-256.
func isHex(id string) bool { return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" }

// isRoot tells whether names, with a slash between their parts, look like those of a
// root file system.
func isRoot(names []string) bool {
	tops := map[string]bool{}
	for _, name := range names {
		switch top, _, _ := strings.Cut(name, "/"); top {
		case "bin", "dev", "etc", "home", "lib", "lib64", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var":
			tops[top] = true
		}
	}
	return len(tops) >= 2
}

// directory says what a directory is, nil if that is not known.
func directory(loc remote.Location) *remote.KindError {
	entries, err := readDir(loc.Path)
	if err != nil {
		return nil
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	switch {
	case has(ocispec.ImageIndexFile):
		return &remote.KindError{Found: "a directory with an OCI image layout", Instead: instead(loc, remote.TransportOCI)}
	case has("manifest.json") && has("version"):
		return &remote.KindError{Found: "a directory of skopeo's transport dir:, which imgfs does not read",
			Command: "skopeo copy " + printable.Word("dir:"+loc.Path) + " oci:image"}
	case has("manifest.json") && isDockerManifest(filepath.Join(loc.Path, "manifest.json")):
		return &remote.KindError{Found: "a directory with an archive of docker save, unpacked",
			Command: "tar -C " + printable.Word(loc.Path) + " -cf image.tar . && imgfs ls docker-archive:image.tar"}
	case has(ocispec.ImageLayoutFile):
		return nil // its index.json is missing
	case isRoot(names):
		return &remote.KindError{Found: "a directory tree that is no image"}
	case len(entries) == 0:
		return &remote.KindError{Found: "an empty directory"}
	}
	for _, e := range entries {
		below := filepath.Join(loc.Path, e.Name())
		if _, err := os.Lstat(filepath.Join(below, ocispec.ImageIndexFile)); err == nil && e.IsDir() {
			loc.Path = below
			return &remote.KindError{Found: "a directory that has an OCI image layout in " + quoted(e.Name()), Instead: instead(loc, remote.TransportOCI)}
		}
	}
	if loc.Transport == remote.TransportOCI {
		return nil // the name of what it lacks says more
	}
	return &remote.KindError{Found: "a directory"}
}

func quoted(name string) string { return fmt.Sprintf("%.100q", name) }

// maxEntries is how many entries of a directory are looked at.
const maxEntries = 1000

func readDir(path string) ([]fs.DirEntry, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxEntries)
	if err == io.EOF {
		err = nil
	}
	return entries, err
}

// isDockerManifest tells whether a file is a manifest.json of docker save.
func isDockerManifest(path string) bool {
	const limit = 8 << 20
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return false
	}
	content, err := os.ReadFile(path)
	var images []struct {
		Config string
		Layers []string
	}
	return err == nil && json.Unmarshal(content, &images) == nil && len(images) > 0 && images[0].Config != ""
}
