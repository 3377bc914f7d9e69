package main

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/localname"
	"github.com/imgfs/imgfs/remote/printable"
)

// mountArguments returns the image and the directory that the arguments of imgfs mount
// name. dir is "" if one has to be made.
func mountArguments(ctx context.Context, args []string) (img, dir string, err error) {
	if len(args) > 0 && args[0] == "" {
		err := cli.Usagef("mount: the name of the image is empty")
		if serve.Managed() && len(args) == 2 {
			return "", "", cli.WithHint(err, "of imgfs@.service it is IMAGE= in the file "+printable.Word("/etc/imgfs"+args[1]+".conf")+", a user's in ~/.config/imgfs")
		}
		return "", "", cli.WithHint(err, "imgfs mount IMAGE [DIR]")
	}
	switch len(args) {
	case 1:
		return args[0], "", nil
	case 2:
		if args[1] == "" { // as of a script whose variable is not set
			return "", "", cli.WithHint(cli.Usagef("mount: the name of the directory is empty"), "imgfs mount "+printable.Word(args[0])+" DIR, or without a word for DIR")
		}
		_, err := fusefs.Ask(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, checkOrder(ctx, args[0], args[1]) })
		if errors.Is(err, fusefs.ErrNoAnswer) {
			err = nil // what hangs is for fusefs.Check to say
		}
		return args[0], args[1], err
	}
	return "", "", cli.Usagef("mount: an image is needed, and a directory unless imgfs is to make one")
}

// checkOrder refuses arguments that are the wrong way round, and a directory that is
// the name of an image.
func checkOrder(ctx context.Context, img, dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		if !isPlainDir(ctx, img) || !localname.IsPath(img) || !isImage(ctx, dir) {
			return nil
		}
	case err == nil:
		if !isPlainDir(ctx, img) || !isImage(ctx, dir) {
			return nil
		}
	case localname.IsPath(dir) || !errors.Is(err, os.ErrNotExist):
		return nil
	case isPlainDir(ctx, img) && wholeImage("mount", dir, img) != nil:
		return wholeImage("mount", dir, img)
	case isPlainDir(ctx, img) || localname.IsPath(img) && !isImage(ctx, img):
		if !namesImage(dir) {
			return nil
		}
		if !localname.IsPath(img) && !looksLikeImage(dir) {
			// Both may be either; what is there is more probably the directory.
			return cli.WithHint(cli.Usagef("mount: there is no directory %s", printable.Name(dir)),
				"imgfs mount "+printable.Word(dir)+" "+printable.Word(img)+", if "+printable.Word(dir)+" is the image; else make the directory before")
		}
	case looksLikeImage(dir):
		if looksLikeImage(img) || isImage(ctx, img) {
			return cli.WithHint(cli.Usagef("mount: %s is the name of an image, and there is no directory of that name", printable.Name(dir)),
				"imgfs mount "+printable.Word(img)+" DIR")
		}
	default:
		return nil
	}
	return cli.WithHint(cli.Usagef("mount: the arguments are the wrong way round: the image comes first"),
		"imgfs mount "+printable.Word(dir)+" "+printable.Word(img))
}

// isPlainDir reports whether a name is that of a directory that is no image. Of a file
// system that hangs nothing is said.
func isPlainDir(ctx context.Context, name string) bool {
	is, err := fusefs.Ask(ctx, func(ctx context.Context) (bool, error) {
		info, err := os.Stat(name)
		return err == nil && info.IsDir(), err
	})
	return err == nil && is && !isImage(ctx, name)
}

// isImage reports whether an image lies at a path. Of a file system that hangs nothing is
// said.
func isImage(ctx context.Context, name string) bool {
	_, err := imageAt(ctx, name)
	return err == nil
}

// namesImage reports whether a word can be the name of an image.
func namesImage(word string) bool {
	loc, err := remote.ParseLocation(word)
	if err != nil || loc.Transport != remote.TransportDocker {
		return err == nil
	}
	_, err = remote.ParseReference(loc.Path)
	return err == nil
}

// looksLikeImage reports whether a word is hardly anything else than the name of an
// image: with a transport, a tag, a digest or a registry.
func looksLikeImage(word string) bool {
	if !namesImage(word) {
		return false
	}
	host, _, hasHost := strings.Cut(word, "/")
	return strings.ContainsAny(word, ":@") || hasHost && (strings.Contains(host, ".") || host == "localhost")
}

// notMountable adds a hint to the error of what is no image, if it may have been meant as
// the directory.
func notMountable(err error, name string) error {
	if failed, ok := err.(*localname.Error); ok && failed.Hint == "" && failed.Dir {
		return cli.WithHint(err, "imgfs mount IMAGE "+printable.Word(name))
	}
	return err
}

// mountpointName returns a name for the directory that an image is mounted on, without
// anything that means something to a shell: fedora-41 for quay.io/fedora/fedora:41.
func mountpointName(name string) string {
	loc, err := remote.ParseLocation(name)
	if err != nil {
		return "image"
	}
	base, detail := path.Base(loc.Path), strings.TrimPrefix(loc.Image, "@")
	reference := loc.Path
	if loc.Transport != remote.TransportDocker && !loc.InFile() { // a store
		reference = detail
	}
	if ref, err := remote.ParseReference(reference); err == nil && !loc.InFile() {
		base, detail = path.Base(ref.Repository), ref.Tag
		if ref.Digest != "" {
			detail = ref.Digest.Encoded()[:12]
		}
	} else {
		for _, end := range []string{".gz", ".zst", ".xz", ".bz2", ".tgz", ".txz", ".tar"} {
			base = strings.TrimSuffix(base, end)
		}
		detail = path.Base(detail)
	}
	if detail != "" && detail != "latest" && detail != "." {
		base += "-" + detail
	}
	base = strings.Trim(strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("._-", r)) {
			return r
		}
		return '-'
	}, base), "-.")
	const most = 64
	base = strings.TrimRight(base[:min(len(base), most)], "-.")
	if base == "" {
		return "image"
	}
	return base
}
