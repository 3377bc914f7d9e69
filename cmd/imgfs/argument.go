package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/localname"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// A fileArgument is an argument that names a file in an image.
type fileArgument struct {
	typed  string // the argument, as messages and headings have it
	image  string
	path   string
	joined bool // the argument is IMAGE:/PATH
}

// fileArguments reads the arguments of a command that are either IMAGE PATH... or
// IMAGE:/PATH... In the second form a word that begins with a slash is a path in the
// image that was named last. There is at least one argument; of an image alone there
// are no files.
func fileArguments(command string, args []string) ([]fileArgument, error) {
	img, _, joined := remote.CutPath(args[0])
	if !joined {
		var files []fileArgument
		for _, p := range args[1:] {
			files = append(files, fileArgument{typed: p, image: args[0], path: p})
		}
		return files, nil
	}
	var files []fileArgument
	for i, arg := range args {
		cut, below, ok := remote.CutPath(arg)
		switch {
		case i > 0 && strings.HasPrefix(arg, "/"):
			files = append(files, fileArgument{typed: arg, image: img, path: arg})
		case ok:
			img = cut
			files = append(files, fileArgument{typed: arg, image: img, path: below, joined: true})
		default:
			err := cli.Usagef("%s: %s is neither IMAGE:/PATH nor a path that begins with a slash, which all arguments are behind %s", command, arg, args[0])
			return nil, cli.WithHint(err, fmt.Sprintf("%s if it is an image, %s if it is a path", printable.Word(arg+":/"), printable.Word("/"+arg)))
		}
	}
	return files, nil
}

// wholeImage refuses IMAGE:/PATH where an image is named and no path has a meaning. Its
// hint is the command for the whole image; dir is where that is mounted, or "".
func wholeImage(command, name, dir string) error {
	img, below, ok := remote.CutPath(name)
	if !ok {
		return nil
	}
	hint := fmt.Sprintf("imgfs %s %s", command, printable.Word(img))
	if dir != "" {
		hint += fmt.Sprintf(" %s && ls %s", printable.Word(dir), printable.Word(strings.TrimSuffix(dir, "/")+below))
	}
	return cli.WithHint(cli.Usagef("%s: %s: it takes a whole image, and no path such as %s", command, name, below), hint)
}

// An imageError says that the image of an argument could not be opened.
type imageError struct {
	error
	hint string // for where there is no better one
}

// Unwrap returns what has failed.
func (e *imageError) Unwrap() error { return e.error }

// trees are the images that the arguments of a command name, each opened once.
type trees struct {
	env     *env
	command string
	flags   *treeFlags // nil: none
	survey  bool       // of each image what its layers do; set before each
	disk    *cache.Cache
	open    map[string]*image.Image // nil is one that could not be opened
	surveys map[*image.Image]*fs.Survey
}

// openTrees opens the user's cache for images, which are opened as flags say; nil is as
// they are. close closes it, and them.
func (e *env) openTrees(command string, flags *treeFlags) (*trees, error) {
	if err := e.indexes.configure(new(image.Options)); err != nil {
		return nil, err // a wrong variable is none of a single image
	}
	disk, err := e.openCache()
	if err != nil {
		return nil, err
	}
	return &trees{env: e, command: command, flags: flags, disk: disk, open: make(map[string]*image.Image), surveys: make(map[*image.Image]*fs.Survey)}, nil
}

func (t *trees) close() {
	t.env.reportTraffic(t.disk)
	for _, img := range t.open {
		if img != nil {
			img.Close()
		}
	}
	t.disk.Close()
}

// each calls do with every argument and its image, prints the errors, and returns an
// error if there was one. An image that cannot be opened is one error, however many
// arguments name it.
func (t *trees) each(ctx context.Context, args []fileArgument, do func(fileArgument, *image.Image) error) error {
	var failed error
	for _, a := range args {
		img, known := t.open[a.image]
		if !known {
			var err error
			if img, err = t.tree(ctx, a); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				t.env.Error(swapped(t.command, args, err))
			}
		}
		if img == nil {
			failed = &cli.ExitError{}
			continue
		}
		err := error(unix.ENOENT) // as of any empty path
		if a.path != "" {
			err = do(a, img)
		}
		if err != nil {
			t.env.Error(a.failed(img, err))
			failed = &cli.ExitError{}
		}
	}
	return failed
}

// tree opens the image of an argument.
func (t *trees) tree(ctx context.Context, a fileArgument) (*image.Image, error) {
	t.open[a.image] = nil
	r, err := t.resolve(ctx, a)
	if err != nil {
		return nil, err
	}
	return t.merge(ctx, a, r)
}

// resolve finds the image of an argument, with the layers that are wanted.
func (t *trees) resolve(ctx context.Context, a fileArgument) (*image.Resolved, error) {
	r, err := t.env.resolve(ctx, a.image, t.disk)
	if err != nil {
		return nil, a.unopened(ctx, t.command, err)
	}
	if err := t.flags.choose(r); err != nil {
		r.Close()
		return nil, a.named(err)
	}
	return r, nil
}

// merge opens the image of an argument, which has been found, as one tree. It takes r
// over.
func (t *trees) merge(ctx context.Context, a fileArgument, r *image.Resolved) (*image.Image, error) {
	layers, err := t.env.openLayers(ctx, r)
	if err != nil {
		return nil, a.named(err)
	}
	used := t.env.mergeMemory(layers)
	var img *image.Image
	if t.survey {
		var survey *fs.Survey
		if img, survey, err = t.env.mergeSurvey(ctx, layers); err == nil {
			t.surveys[img] = survey
		}
		used *= 2
	} else {
		img, err = t.env.merge(ctx, layers)
	}
	if err != nil {
		return nil, a.named(err)
	}
	t.env.limits.held += used
	t.open[a.image] = img
	return img, nil
}

// unopened returns an error of finding the image that an argument names: as named does,
// and with what may have been meant if the path in the image follows its name without a
// colon. What cannot be read, or has another platform, was found.
func (a fileArgument) unopened(ctx context.Context, command string, err error) error {
	named := a.named(err)
	switch {
	case errors.Is(err, remote.ErrUnsupported), errors.Is(err, remote.ErrPlatform):
		return named
	case a.joined:
		return &imageError{named, fmt.Sprintf("that was read as imgfs %s %s %s", command, printable.Word(a.image), printable.Word(a.path))}
	}
	if meant := missingColon(ctx, a.image); meant != "" {
		return &imageError{named, meantFile(command, meant)}
	}
	return named
}

// named returns an error about the image of an argument, with the argument if that is
// more than the image.
func (a fileArgument) named(err error) error {
	if a.joined {
		return fmt.Errorf("%s: %w", a.typed, err)
	}
	return err
}

// swapped adds a hint to an error of opening the first of the images that arguments
// name, if it is a path and an image follows it.
func swapped(command string, args []fileArgument, err error) error {
	first := args[0]
	i := slices.IndexFunc(args, func(a fileArgument) bool { return looksLikeImage(a.typed) })
	var path *localname.Error
	if i < 0 && errors.As(err, &path) && path.Hint == "" && localname.IsPath(first.image) && len(args) == 1 && namesImage(first.typed) {
		i = 0
	}
	if i < 0 || first.joined || looksLikeImage(first.image) {
		return err
	}
	return cli.WithHint(err, fmt.Sprintf("the image comes first: imgfs %s %s %s", command, printable.Word(args[i].typed), printable.Word(first.image)))
}

// meantFile returns the hint to IMAGE:/PATH that may have been meant.
func meantFile(command, file string) string {
	return "imgfs " + command + " " + printable.Word(file) + ", if that is an image and a path in it"
}

// topDirs are directories that most images have, and no usual tags.
var topDirs = strings.Fields("bin boot etc home lib lib64 mnt opt root sbin srv tmp usr var")

// missingColon returns IMAGE:/PATH for what can be IMAGE/PATH, IMAGE:PATH or IMAGE:, or "".
// In a registry the first is a name with a slash behind its tag, and on this machine one
// with a slash behind what is an image. The second is one whose tag is a directory that
// most images have.
func missingColon(ctx context.Context, name string) string {
	if strings.HasSuffix(name, ":") {
		if _, _, ok := remote.CutPath(name + "/"); ok {
			return name + "/"
		}
	}
	loc, err := remote.ParseLocation(name)
	if err != nil || loc.Transport == remote.TransportStdin {
		return ""
	}
	start := len(name) - len(strings.TrimPrefix(name, "docker://"))
	if loc.Transport != remote.TransportDocker {
		start = len(loc.Transport + ":")
	}
	rest := name[start:]
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		slash := strings.IndexByte(rest[i:], '/')
		before := rest[:i]
		if first, _, _ := strings.Cut(rest[i+1:], "/"); before != "" && slices.Contains(topDirs, first) {
			return name[:start+i] + ":/" + rest[i+1:]
		}
		host := loc.Transport == remote.TransportDocker && (strings.ContainsAny(before, ".[") && !strings.Contains(before, "/") || before == "localhost")
		if slash > 1 && before != "" && !host && !isPort(rest[i+1:i+slash]) {
			return name[:start+i+slash] + ":" + rest[i+slash:]
		}
	}
	if loc.Image == "" && (loc.InFile() || localname.IsPath(name)) {
		for i := len(rest) - 1; i > 0; i-- {
			if rest[i] == '/' && isImage(ctx, rest[:i]) {
				return name[:start+i] + ":" + rest[i:]
			}
		}
	}
	return ""
}

// isPort reports whether a text is rather a port than a tag.
func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && (n >= 1000 || n == 80 || n == 443)
}

// failed returns an error of reading the file that an argument names, with its name.
func (a fileArgument) failed(img *image.Image, err error) error {
	var looked *iofs.PathError
	if errors.As(err, &looked) {
		err = looked.Err
	}
	failed := fmt.Errorf("%s: %w", cmp.Or(a.typed, `""`), err)
	if !a.joined {
		failed = fmt.Errorf("%s: %w", img.Name(), failed)
	}
	_, _, cut := remote.CutPath(a.typed)
	switch missing := errors.Is(err, iofs.ErrNotExist); {
	case missing && !a.joined && (cut || looksLikeImage(a.typed)):
		other := a.typed
		if !cut {
			other += ":/PATH"
		}
		hint := fmt.Sprintf("files of several images are %s and %s", printable.Word(a.image+":/PATH"), printable.Word(other))
		return cli.WithHint(failed, hint)
	case missing && strings.ContainsAny(a.path, "*?["):
		list := "imgfs ls " + printable.Word(a.image) + " " + printable.Word(path.Dir("/"+a.path))
		return cli.WithHint(failed, "no shell expands a pattern in an image; "+list+" lists what there is")
	}
	return failed
}

// listedImages are the images of a command's arguments, as the packages have them that read
// their files: one for each.
type listedImages map[*image.Image]*entry.Image

// of returns the image of an argument.
func (l listedImages) of(a fileArgument, img *image.Image) *entry.Image {
	if l[img] == nil {
		l[img] = &entry.Image{Name: a.image, Title: img.Name(), Tree: img.Tree()}
	}
	return l[img]
}
