package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/localname"
	"github.com/imgfs/imgfs/remote/printable"
)

// located returns the name of an image with its transport. If it is a path to a layout
// or an archive, it says what that was taken for; other names stay as they are.
func (e *env) located(ctx context.Context, name string) (string, error) {
	loc, ok, err := find(ctx, name)
	if errors.Is(err, fusefs.ErrNoAnswer) {
		if !localname.IsPath(name) {
			return name, nil // it is a reference first of all
		}
		return name, cli.WithHint(fmt.Errorf("%s: %w", name, err), fusefs.HintNoAnswer(name))
	}
	if m, barred := fusefs.BarredBy(name); barred && errors.Is(err, fs.ErrPermission) {
		return name, cli.WithHint(err, "only "+m.Owner+" may look into the mount "+printable.Name(m.Dir)+"; "+fusefs.HintBarred)
	}
	if err != nil {
		if m, inside := fusefs.MountOf(ctx, name); inside == nil && m.Dir != "" {
			err = cli.WithHint(err, printable.Name(m.Name)+" is mounted on "+printable.Word(m.Dir)+": any program can read it there")
		}
		return name, err
	}
	if !ok {
		return name, nil
	}
	e.Warnf("reading %s", loc)
	return loc.String(), nil
}

// find is localname.Find for a file system that may hang.
func find(ctx context.Context, name string) (loc remote.Location, ok bool, err error) {
	loc, err = fusefs.Ask(ctx, func(ctx context.Context) (loc remote.Location, err error) {
		loc, ok, err := localname.Find(ctx, name)
		if err == nil && !ok {
			err = errNoPath
		}
		return loc, err
	})
	if errors.Is(err, errNoPath) {
		return loc, false, nil
	}
	return loc, err == nil, err
}

// errNoPath says that a name means no path.
var errNoPath = errors.New("not a path")

// imageAt is localname.At for a file system that may hang.
func imageAt(ctx context.Context, name string) (remote.Location, error) {
	return fusefs.Ask(ctx, func(ctx context.Context) (remote.Location, error) { return localname.At(ctx, name) })
}

// nameNow returns the full name of an image that is not open yet, and the errors that can
// be told before: of a name that is none, and of a file that is not there.
func (e *env) nameNow(ctx context.Context, name string) (string, error) {
	full, err := image.NameOf(name, e.imageOptions())
	if loc, none := remote.ParseLocation(name); err == nil && none == nil && loc.InFile() {
		_, err = fusefs.Ask(ctx, func(context.Context) (fs.FileInfo, error) { return os.Stat(loc.Path) })
	}
	if err != nil {
		return "", e.advise(ctx, name, err)
	}
	return full, nil
}

// readsStdin reports whether the image comes from standard input.
func readsStdin(name string) bool {
	loc, err := remote.ParseLocation(name)
	return err == nil && loc.Stdin()
}

// advise adds a hint to an error of finding an image, if its name may have been meant
// otherwise.
func (e *env) advise(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	loc, bad := remote.ParseLocation(name)
	if hint := otherTransport(name); bad != nil && hint != "" {
		return cli.WithHint(err, hint)
	}
	if m, barred := fusefs.BarredBy(loc.Path); barred && errors.Is(err, fs.ErrPermission) && loc.InFile() {
		return cli.WithHint(err, "only "+m.Owner+" may look into the mount "+printable.Name(m.Dir)+"; "+fusefs.HintBarred)
	}
	if bad != nil || loc.Transport != remote.TransportDocker {
		if hint := otherTransport(name); hint != "" && loc.Transport == remote.TransportDockerDaemon && (e.offline || errors.Is(err, remote.ErrUnsupported)) {
			return cli.WithHint(err, hint)
		}
		var none *remote.NameError
		if errors.As(err, &none) {
			if near := nearNames(none.Image, none.Names); len(near) > 0 {
				loc.Image = near[0]
				return cli.WithHint(err, printable.Word(loc.String()))
			}
		}
		if hint := pathHint(loc); hint != "" {
			return cli.WithHint(err, hint)
		}
		return err
	}
	if hint := otherTransport(name); hint != "" && (errors.Is(err, remote.ErrReference) || errors.Is(err, remote.ErrUnsupported)) {
		return cli.WithHint(err, hint)
	}
	if trimmed := strings.TrimSpace(name); trimmed != name {
		if _, ok, _ := find(ctx, trimmed); ok {
			return cli.WithHint(err, "without the space: "+printable.Word(trimmed))
		}
	}
	if meant := meantName(loc.Path); meant != "" {
		return cli.WithHint(err, meant)
	}
	if strings.HasPrefix(name, "docker://") || errors.Is(err, remote.ErrReference) {
		return err
	}
	if isRegistry(loc.Path) {
		return cli.WithHint(err, "a registry alone is no image: "+printable.Word(loc.Path+"/NAME"))
	}
	if here, none := imageAt(ctx, name); none == nil {
		here.Path = nearPath(name, here.Path)
		return cli.WithHint(err, "if what lies here is meant: "+printable.Word(here.String()))
	}
	return err
}

// otherTransport returns the hint for a transport that other programs have, or "".
func otherTransport(name string) string {
	transport, rest, _ := strings.Cut(name, ":")
	path := printable.Word(strings.TrimPrefix(rest, "//"))
	if rest == "" {
		return ""
	}
	switch transport {
	case "file":
		return path
	case "ocidir", "oci-dir", "oci-layout":
		return "oci:" + path
	case "docker-tar", "docker-save":
		return "docker-archive:" + path
	case "dir":
		return "skopeo copy " + printable.Word(name) + " oci:DIR"
	case "docker-daemon":
		return "docker save -o image.tar " + path + " && imgfs ls image.tar"
	}
	return ""
}

// nearPath returns the shorter spelling of a path: as in the name, if it is that.
func nearPath(name, path string) string {
	near, _, _ := strings.Cut(name, ":")
	if abs, err := filepath.Abs(near); err == nil && abs == path {
		return near
	}
	return path
}

// pathHint returns the hint for a path behind a transport that cannot be meant: one that
// begins with ~, where a shell leaves it as it is, or the host of a registry. Or "".
func pathHint(loc remote.Location) string {
	if rest, ok := strings.CutPrefix(loc.Path, "~/"); ok {
		return "the shell leaves ~ alone there: " + loc.Transport + `:"$HOME"/` + printable.Word(rest)
	}
	if ref, ok := strings.CutPrefix(loc.Path, "//"); ok {
		if loc.Image != "" {
			ref += ":" + strings.TrimPrefix(loc.Image, "@")
		}
		if _, err := remote.ParseReference(ref); err == nil {
			return "for an image in a registry: " + printable.Word("docker://"+ref)
		}
	}
	return ""
}

// nearNames returns those of the names in a layout or an archive that are like one: the
// whole of them, without their registry, or their tag alone.
func nearNames(typed string, names []string) []string {
	var parts []string
	whole := map[string]string{}
	for _, name := range names {
		for _, part := range []string{name, name[strings.LastIndexByte(name, '/')+1:], name[strings.LastIndexByte(name, ':')+1:]} {
			if whole[part] == "" {
				whole[part] = name
				parts = append(parts, part)
			}
		}
	}
	near := cli.Nearest(typed, parts)
	for i, part := range near {
		near[i] = whole[part]
	}
	return near
}
