package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/explore"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/treecopy"
	"github.com/imgfs/imgfs/fs/treediff"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// diveFlags are flags of dive, and what to type for them.
var diveFlags = map[string]string{
	"--ci": "imgfs du --layers --json IMAGE, which has what each layer wastes", "--ci-config": "imgfs du --layers --json IMAGE",
	"--source": "leave it out: docker-daemon:IMAGE, docker-archive:FILE, oci:DIR; help images", "-j": "imgfs du --layers --json IMAGE", "--json": "imgfs du --layers --json IMAGE",
	"--lowestEfficiency": "imgfs du --layers --json IMAGE", "--highestWastedBytes": "imgfs du --layers --json IMAGE", "--highestUserWastedPercent": "imgfs du --layers --json IMAGE",
	"--ignore-errors": "leave it out", "-i": "leave it out",
}

// exploreHint names what prints what explore shows.
const exploreHint = "imgfs tree IMAGE, imgfs du --layers IMAGE and imgfs diff IMAGE1 IMAGE2 print the same"

func exploreCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "explore",
		Usage: "[FLAGS] IMAGE [IMAGE2]",
		Entry: cli.Entry{Usage: "IMAGE", Text: "look around in it, full screen: layers, waste, diff"},
		About: `Shows the layers of the image on the whole screen, and its files: all of them or
what a layer changed, what later layers waste, and with IMAGE2 what that one has
not the same. Files are fetched when they are opened.

  Tab, arrows    to the other pane, and through it; Enter opens, Esc ends
  t w d          what the layer changed; what is wasted; another image
  f o / n N      leave out what has not changed; sort; search
  i v s          all about a file; read it in $PAGER; save it
  ? q            all keys; leave`,
		Notes:      "The mouse chooses, too. With NO_COLOR there are no colours.",
		OtherFlags: diveFlags,
		Example:    "imgfs explore fedora:43 fedora:latest",
		Setup: func(f *pflag.FlagSet) cli.Action {
			flags := newTreeFlags(f)
			return func(ctx context.Context, args []string) error {
				return exploreImage(ctx, e, flags, args)
			}
		},
	}
}

func exploreImage(ctx context.Context, e *env, flags *treeFlags, args []string) error {
	switch {
	case len(args) == 0:
		return cli.Usagef("explore: no image named")
	case len(args) > 2:
		return cli.Usagef("explore: %s: it takes one image, or two", args[2])
	}
	for _, name := range args {
		if err := wholeImage("explore", name, ""); err != nil {
			return err
		}
	}
	if _, ok := cli.Terminal(e.Raw); !ok {
		return cli.WithHint(errors.New("explore: stdout is no terminal"), exploreHint)
	}
	if term := os.Getenv("TERM"); term == "" || term == "dumb" {
		return cli.WithHint(fmt.Errorf("explore: nothing can be drawn on this terminal, TERM=%s", term), exploreHint)
	}
	t, err := e.openTrees("explore", flags)
	if err != nil {
		return err
	}
	defer t.close()
	x := &explorer{env: e, trees: t, name: args[0]}
	config := explore.Config{
		Name: args[0], Resolve: x.resolve, Open: x.open, Other: x.other, Save: x.save, Rest: x.memory.Check, Describe: cli.Describe, Colour: explore.Colours(),
	}
	if len(args) == 2 {
		config.With = args[1]
	}
	ending, cancel := context.WithCancel(ctx)
	defer cancel()
	x.memory.begin(ending, t.disk)
	defer x.memory.close()
	e.adjust = x.memory.adjust
	e.shown.none = true
	defer func() { e.shown.none = false }()
	if err := x.begin(ctx); err != nil {
		return err
	}
	defer x.close()
	return explore.Run(ctx, config, e.SetOutput)
}

// An explorer opens images for the command explore. Its methods are called by one goroutine
// at a time, but for save.
type explorer struct {
	env   *env
	trees *trees
	name  string
	found chan struct{} // closed when the image has been looked for
	image *image.Resolved
	err   error

	memory exploreMemory
}

// quickly is how long the image is looked for before the screen shows that: what is wrong
// with a name is said without one.
const quickly = 300 * time.Millisecond

// begin begins to look for the image. It returns what soon turns out to be wrong.
func (x *explorer) begin(ctx context.Context) error {
	x.found = make(chan struct{})
	go func() {
		defer close(x.found)
		x.image, x.err = x.trees.resolve(ctx, fileArgument{typed: x.name, image: x.name})
	}()
	select {
	case <-x.found:
		return x.err
	case <-time.After(quickly):
		return nil
	}
}

// close closes the image if it has not been opened.
func (x *explorer) close() {
	select {
	case <-x.found:
		if x.image != nil {
			x.image.Close()
		}
	default: // the process ends
	}
}

// resolve returns the layers of the image.
func (x *explorer) resolve(ctx context.Context) ([]explore.Layer, error) {
	select {
	case <-x.found:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if x.err != nil {
		return nil, x.err
	}
	steps, warning := x.image.History()
	if warning != "" {
		x.env.Warnf("%s: %s", x.image.Name(), warning)
	}
	byLayer, all := layerSteps(steps), []explore.Layer{}
	for i, l := range x.image.Layers {
		s := byLayer[i]
		all = append(all, explore.Layer{Digest: l.Digest().String(), Size: l.Size(), Command: commandText(s.CreatedBy, s.Comment)})
	}
	return all, nil
}

// open opens the image.
func (x *explorer) open(ctx context.Context, progress func(string)) (*explore.Image, error) {
	r := x.image
	x.image = nil // it is taken over
	layers, err := openLayersTelling(ctx, r, progress)
	if err != nil {
		return nil, err
	}
	progress(fmt.Sprintf("merging %s", show.Count(len(layers.All()), "layer")))
	x.memory.limit(layers)
	img, survey, err := layers.MergeSurvey(ctx)
	if err != nil {
		return nil, err
	}
	x.trees.open[x.name] = img
	shown := x.shown(img)
	shown.Survey = survey
	return shown, nil
}

// other opens an image that is compared with it.
func (x *explorer) other(ctx context.Context, name string, progress func(string)) (*explore.Image, error) {
	if img := x.trees.open[name]; img != nil {
		return x.shown(img), nil
	}
	if err := wholeImage("explore", name, ""); err != nil {
		return nil, err
	}
	r, err := x.trees.resolve(ctx, fileArgument{typed: name, image: name})
	if err != nil {
		return nil, err
	}
	layers, err := openLayersTelling(ctx, r, progress)
	if err != nil {
		return nil, err
	}
	progress("merging")
	x.memory.limit(layers)
	img, err := layers.Merge(ctx)
	if err != nil {
		return nil, err
	}
	x.trees.open[name] = img
	return x.shown(img), nil
}

// shown returns an image for the screen.
func (x *explorer) shown(img *image.Image) *explore.Image {
	return &explore.Image{
		Name: img.Name(), Tree: img.Tree(),
		Owners: func(ctx context.Context) (user, group func(uint32) string) {
			owners := ls.ReadOwners(ctx, &ls.Image{Name: img.Name(), Tree: img.Tree()}, x.env.Warnf)
			user = func(id uint32) string { name, _ := owners.User(id); return name }
			group = func(id uint32) string { name, _ := owners.Group(id); return name }
			return user, group
		},
		Same: func(other *explore.Image) *treediff.Options {
			d := &difference{}
			for _, open := range x.trees.open {
				if open != nil && open.Tree() == other.Tree {
					d.images = [2]*image.Image{img, open}
				}
			}
			return &treediff.Options{SameOffsets: d.sameOffsets()}
		},
	}
}

// openLayersTelling opens the layers of an image, and tells how far that is.
func openLayersTelling(ctx context.Context, r *image.Resolved, progress func(string)) (*image.Layers, error) {
	var told atomic.Int64 // in milliseconds
	begun := time.Now()
	return r.OpenLayers(ctx, func(p image.Progress) {
		now := time.Since(begun).Milliseconds()
		if last := told.Load(); !p.Done && p.Read > 0 && now > last+50 && told.CompareAndSwap(last, now) {
			progress(fmt.Sprintf("reading layer %d: %s of %s", p.Layer+1, show.Bytes(p.Read), show.Bytes(max(p.Read, p.Size))))
		}
	})
}

// save copies a file or directory to a destination on this machine, as cp does.
func (x *explorer) save(ctx context.Context, img *explore.Image, from string, n fs.Node, to string, progress func(int64)) error {
	to = expandHome(to)
	o := &cpOptions{}
	d, err := findDestination(to, o, 1)
	if err != nil {
		return err
	}
	defer d.close()
	if d.special {
		return fmt.Errorf("%s: neither a file nor a directory", to)
	}
	left := 0
	var first error
	c := treecopy.New(&treecopy.Options{Umask: x.env.umask, Progress: progress, Failed: func(err error) {
		if left++; first == nil {
			first = err
		}
	}})
	if from == "/" {
		from = "/."
	}
	if err := d.copy(ctx, c, img.Tree, from, n); err != nil {
		return err
	}
	if first != nil {
		return fmt.Errorf("%s could not be saved as part of %s: %w", show.Count(left, "file"), printable.Line(path.Base(from)), first)
	}
	return nil
}
