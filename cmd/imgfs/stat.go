package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// statFlags are the flags of stat.
type statFlags struct {
	*treeFlags
	follow, json   bool
	format, printf string
}

func statCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "stat",
		Usage: "[FLAGS] IMAGE PATH... | IMAGE:/PATH...",
		Entry: cli.Entry{Usage: "IMAGE PATH...", Text: "print where a file comes from, and its history"},
		About: `Prints what stat(1) does, the digest of the content if the index has it, the
layer and build step that the file comes from, and all layers that have had its
path: also one that is in the image no more.`,
		Notes: `FORMAT has %n %N %s %a %A %u %U %g %G %F %y %Y %i %h %f %b %B %t %T and others
of stat(1). An image has one time a file: that of its modification.`,
		Example: "imgfs stat fedora:latest /etc/os-release",
		Setup: func(f *pflag.FlagSet) cli.Action {
			flags := statFlags{treeFlags: newTreeFlags(f)}
			f.BoolVarP(&flags.follow, "dereference", "L", false, "follow symlinks, within the image")
			f.StringVarP(&flags.format, "format", "c", "", "`FORMAT` print that of each file, as stat -c does")
			f.StringVar(&flags.printf, "printf", "", "`FORMAT` likewise, with escapes such as \\n and no newline")
			f.BoolVar(&flags.json, "json", false, "print JSON")
			return func(ctx context.Context, args []string) error {
				return statFiles(ctx, e, &flags, args)
			}
		},
	}
}

// A statDoc is a file with its history.
type statDoc struct {
	entry.Entry
	Gone    bool          `json:"gone,omitempty"` // it is in the image no more
	Digest  digest.Digest `json:"digest,omitempty"`
	Layer   int           `json:"layer"` // that it comes from, or that hides it
	History []statVersion `json:"history"`
}

// A statVersion is what a layer made of a path.
type statVersion struct {
	Layer       int            `json:"layer"`
	Change      string         `json:"change"`
	LayerDigest digest.Digest  `json:"layerDigest"`
	CreatedBy   string         `json:"createdBy"`
	Type        string         `json:"type,omitempty"`
	Mode        string         `json:"mode,omitempty"`
	UID         uint32         `json:"uid"`
	GID         uint32         `json:"gid"`
	Size        int64          `json:"size"`
	Modified    string         `json:"modified,omitempty"`
	Target      string         `json:"target,omitempty"`
	TargetBytes show.NameBytes `json:"targetBytes,omitempty"`
}

func statFiles(ctx context.Context, e *env, flags *statFlags, args []string) error {
	if len(args) == 0 {
		return cli.Usagef("stat: an image and at least one path are needed")
	}
	if err := checkFormat(flags.format + flags.printf); err != nil {
		return err
	}
	files, err := fileArguments("stat", args)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		err := cli.Usagef("stat: no path in the image %s", args[0])
		return cli.WithHint(err, "imgfs stat "+printable.Word(args[0])+" / for its root; imgfs stats DIR for a mount")
	}
	t, err := e.openTrees("stat", flags.treeFlags)
	if err != nil {
		return err
	}
	defer t.close()
	t.survey = flags.format == "" && flags.printf == ""
	_, terminal := cli.Terminal(e.Raw)
	s := &statPrinter{env: e, trees: t, flags: flags, terminal: terminal, w: bufio.NewWriter(cli.NewWriter(ctx, e.Raw)), images: make(map[*image.Image]*statImage)}
	var array *show.Array
	if flags.json {
		array = show.NewArray(s.w)
	}
	failed := t.each(ctx, files, func(a fileArgument, img *image.Image) error { return s.file(ctx, array, a, img) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if array != nil {
		if err := array.Close(); err != nil {
			return err
		}
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	return failed
}

// A statPrinter prints files.
type statPrinter struct {
	env      *env
	trees    *trees
	flags    *statFlags
	terminal bool
	w        *bufio.Writer
	images   map[*image.Image]*statImage
}

// A statImage is what is known of an image, once for all of its files.
type statImage struct {
	owners *ls.Owners
	steps  map[int]remote.Step
}

func (s *statPrinter) image(ctx context.Context, img *image.Image) *statImage {
	if s.images[img] == nil {
		steps, _ := img.Resolved().History()
		owners := ls.ReadOwners(ctx, &ls.Image{Name: img.Name(), Tree: img.Tree()}, s.env.Warnf)
		s.images[img] = &statImage{owners, layerSteps(steps)}
	}
	return s.images[img]
}

// file prints the file that an argument names.
func (s *statPrinter) file(ctx context.Context, array *show.Array, a fileArgument, img *image.Image) error {
	at, n, err := lookupName(img.Tree(), a.path, s.flags.follow)
	if err != nil && (!errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) || !s.trees.survey) {
		return err
	}
	known := s.image(ctx, img)
	if !s.trees.survey {
		v := &statValues{name: a.typed, node: n, owners: known.owners, terminal: s.terminal}
		if s.flags.printf != "" {
			v.escapes = true
			return v.print(s.w, s.flags.printf)
		}
		if err := v.print(s.w, s.flags.format); err != nil {
			return err
		}
		return s.w.WriteByte('\n')
	}
	survey := s.trees.surveys[img]
	versions, noHistory := survey.History(at)
	if err != nil && noHistory != nil {
		return err
	}
	doc := statDoc{History: s.history(img, versions)}
	if err != nil {
		doc.Path, doc.Gone = entry.Path(a.path), true
		doc.Layer = versions[len(versions)-1].Layer + 1
	} else {
		doc.Entry = entry.New(entry.Path(at), n)
		doc.Layer = survey.Layer(n) + 1
		if d, ok, err := n.ContentDigest(); err == nil && ok {
			doc.Digest = d
		}
	}
	if array != nil {
		if err := array.Add(doc); err != nil {
			return err
		}
	} else if err := s.print(a, img, n, &doc); err != nil {
		return err
	}
	if doc.Gone {
		return s.gone(a, &doc)
	}
	return nil
}

// gone returns the error for a path that is in the image no more.
func (s *statPrinter) gone(a fileArgument, doc *statDoc) error {
	err := fmt.Errorf("not in the image any more: layer %d hides it", doc.Layer)
	for i := len(doc.History) - 1; i >= 0; i-- {
		v := doc.History[i]
		command := map[string]string{"file": "cat", "dir": "ls"}[v.Type]
		if command != "" {
			// The layer below the one that hides it has it last.
			return cli.WithHint(err, fmt.Sprintf("imgfs %s --layer %d %s %s", command, doc.Layer-1, printable.Word(a.image), printable.Word(doc.Path)))
		}
	}
	return err
}

// history returns versions as they are printed.
func (s *statPrinter) history(img *image.Image, versions []fs.Version) []statVersion {
	list, layers := []statVersion{}, img.Layers()
	for _, v := range versions {
		step := s.images[img].steps[v.Layer]
		row := statVersion{Layer: v.Layer + 1, Change: v.Change.String(), LayerDigest: layers[v.Layer].Digest(), CreatedBy: step.CreatedBy}
		if v.Change != fs.Hidden {
			row.Type, row.Mode, row.UID, row.GID = entry.Type(v.Attr.Mode), fmt.Sprintf("%04o", v.Attr.Mode&0o7777), v.Attr.UID, v.Attr.GID
			row.Size, row.Modified, row.Target = v.Attr.Size, entry.Time(v.Attr), v.Target
		}
		list = append(list, row)
	}
	return list
}

// defaultStat is what stat(1) prints of a file, without what an image has not.
const defaultStat = "  File: %N\n  Size: %-10s\tBlocks: %-10b IO Block: %-6o %F\n Inode: %-10i\tLinks: %h%d\n" +
	"Access: (%04a/%10A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\nModify: %y\n"

// print prints a file and its history for people.
func (s *statPrinter) print(a fileArgument, img *image.Image, n fs.Node, doc *statDoc) error {
	known, layers := s.images[img], img.Layers()
	step := func(layer int) string {
		st := known.steps[layer-1]
		return commandText(st.CreatedBy, st.Comment)
	}
	// from writes which layer a file is from, in a line that begins with a label.
	from := func(label string, layer int) string {
		d, width := layers[layer-1].Digest(), s.env.width()
		text := fmt.Sprintf("%s%d %s", label, layer, d)
		if width > 0 {
			text = fmt.Sprintf("%s%d %s", label, layer, show.ShortDigest(d))
		}
		if c := step(layer); c != "" {
			text += " (" + c + ")"
		}
		if width > 0 {
			text = show.ShortenEnd(text, width)
		}
		return text
	}
	if doc.Gone {
		fmt.Fprintf(s.w, "  File: %s\n%s\n", ls.Quote(a.typed, false), from(" State: not in the image any more: hidden by layer ", doc.Layer))
	} else {
		v := &statValues{name: a.typed, node: n, owners: known.owners, terminal: s.terminal, short: true}
		if err := v.print(s.w, defaultStat); err != nil {
			return err
		}
		for _, x := range n.Xattrs() {
			fmt.Fprintf(s.w, " Xattr: %s=%s\n", printable.Name(x.Name), printable.Cell(x.Value))
		}
		if doc.Digest != "" {
			fmt.Fprintf(s.w, "Digest: %s\n", printable.Cell(doc.Digest.String()))
		}
		fmt.Fprintln(s.w, from(" Layer: ", doc.Layer))
	}
	table := show.NewTable(s.env.tableWidth(), show.Column{Title: "History:"}, show.Column{}, show.Column{}, show.Column{}, show.Column{Least: 12, CutEnd: true})
	for _, v := range doc.History {
		mode, size := "-", "-"
		if v.Type != "" {
			mode, size = v.Mode, fmt.Sprint(v.Size)
		}
		table.Row(fmt.Sprintf("%8d", v.Layer), v.Change, mode, size, step(v.Layer))
	}
	return table.Print(s.w)
}

// lookupName finds a file, and returns under which path: with follow that of what the
// symlinks at the end lead to.
func lookupName(t *fs.Tree, name string, follow bool) (at string, n fs.Node, err error) {
	if follow {
		if _, err := t.Lookup(name, true); err != nil {
			return name, fs.Node{}, err
		}
	}
	for {
		n, err = t.Lookup(name, false)
		if err != nil || !follow || n.Mode()&unix.S_IFMT != unix.S_IFLNK {
			return name, n, err
		}
		target := n.Target()
		if !strings.HasPrefix(target, "/") {
			target = name[:strings.LastIndexByte(name, '/')+1] + target
		}
		name = target
	}
}
