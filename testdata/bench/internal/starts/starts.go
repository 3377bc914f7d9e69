// Package starts measures how long programs take to start out of an image of which only the
// indexes are there, over a slow line: without a profile of what programs read, and with one
// that a mount of another tag has noted. Beside that stands what the line would take for the
// bytes and the program with all of them, the same with all bytes in the cache, and the image
// unpacked on disk.
package starts

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/network"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// Options are the settings of this group alone.
type Options struct {
	Work  string    // where images are kept for the next run; "" for nowhere
	Pull  bool      // compare with podman, and with snapshotters of containerd
	All   bool      // measure all lines
	Trace io.Writer // gets a line for each request; nil for none
}

// A line is one that is measured.
type line struct {
	name  string
	delay time.Duration // of a round trip
	mbps  float64
}

func (l *line) String() string { return fmt.Sprintf("%v a round trip, %g Mbit/s", l.delay, l.mbps) }

// takes returns how long the line takes for some bytes.
func (l *line) takes(bytes int64) time.Duration {
	return time.Duration(float64(bytes) * 8 / (l.mbps * 1e6) * float64(time.Second))
}

// lines are those that figures are wanted for.
var lines = []line{{"near", 5 * time.Millisecond, 1000}, {usual, 20 * time.Millisecond, 100}, {"far", 150 * time.Millisecond, 20}}

// usual is the line that is measured if none is named.
const usual = "usual"

// containers is the section of imgfs as a snapshotter.
const containers = "containers"

// A bench is one run of the group.
type bench struct {
	*runner.Runner
	settings
	meter  *network.Meter
	images []*image
	podman string // why it is not measured, or ""

	engines string            // why containerd is not measured, or ""
	path    map[string]string // of the programs of each engine
	others  *foreign.Maker
}

// settings are smaller in tests.
type settings struct {
	Options
	candidates []candidate
	pages      bool // leave the kernel the pages it has
}

// New returns the group.
func New(r *runner.Runner, opts Options) runner.Group {
	return newGroup(r, settings{Options: opts, candidates: candidates})
}

func newGroup(r *runner.Runner, opts settings) runner.Group {
	b := &bench{Runner: r, settings: opts}
	only, _, _ := strings.Cut(r.Only, "/")
	var sections []runner.Section
	for _, l := range lines {
		if opts.All || l.name == only || l.name == usual && only == "" {
			sections = append(sections, runner.Section{Name: l.name, Title: "Starting programs, " + l.String(), Run: func() error { return b.starts(l) }})
		}
	}
	if opts.Pull && only == "" || only == containers {
		sections = append(sections, runner.Section{Name: containers, Title: "Containers of containerd, " + lines[1].String(), Run: func() error { return b.containers(lines[1]) }})
	}
	flags := ""
	if opts.Pull {
		flags = " -pull"
	}
	return runner.Group{
		Name: "starts", Title: "Starting programs of an image", Runs: 3, Flags: flags, Prepare: b.prepare, Sections: sections, Unable: b.unable,
		Unmeasured: func(section, why string) { b.Add(figures.Figure{Name: section, Missing: why}) },
	}
}

// unable says why nothing can be measured here; "" if it can.
func (b *bench) unable() string {
	if os.Geteuid() != 0 {
		return "it needs root"
	}
	if err := b.dropCaches(); err != nil {
		return "what the kernel has cached cannot be dropped: " + err.Error()
	}
	_, missing := runner.LookRegistry()
	return cmp.Or(runner.Lacking("skopeo", "umoci", "unshare", "mount", "chroot", b.Imgfs), missing)
}

// dropCaches makes the kernel forget all pages and inodes that it can.
func (b *bench) dropCaches() error {
	if b.pages {
		return nil
	}
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// prepare fills the registry and makes what runs begin with.
func (b *bench) prepare() error {
	registry, err := b.Registry()
	if err != nil {
		return err
	}
	if b.meter, err = network.NewMeter(registry); err != nil {
		return err
	}
	b.AtEnd(b.meter.Close)
	if b.Work == "" {
		b.Work = b.Dir
	} else if b.Work, err = filepath.Abs(b.Work); err != nil {
		return err
	}
	b.podman = runner.Lacking("podman", "runc")
	if b.Pull {
		b.engines, err = b.buildEngines()
	} else {
		b.podman, b.engines = "only with -pull", "only with -pull"
	}
	if err != nil {
		return err
	}
	b.others = foreign.New(b.Runner)
	for _, c := range b.candidates {
		if !slices.ContainsFunc(c.programs, b.wanted) {
			continue
		}
		if err := b.prepareImage(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// wanted reports whether a program is to be measured: one of those that -only names, or any.
func (b *bench) wanted(p program) bool {
	_, only, _ := strings.Cut(b.Only, "/")
	return only == "" || slices.Contains(strings.Split(only, ","), p.name)
}

// An image is one whose programs are started.
type image struct {
	name     string // its repository
	what     string // for the report
	programs []program
	lacks    string // why it is not measured; "" if it is
	size     int64  // of its layers
	repacked string // for the report: which layers the second tag has anew
	old, now string // its two tags, by way of the meter
	tree     string // unpacked, read-only
	indexed  string // a cache directory with the indexes of both tags

	peers map[string]ofPeer // by snapshotter
}

// prepareImage puts an image into the registry, and the same with half of its layers packed
// anew as another tag; makes the indexes of both; and unpacks it.
func (b *bench) prepareImage(c candidate) error {
	img := &image{name: c.name, what: c.what, programs: slices.DeleteFunc(slices.Clone(c.programs), func(p program) bool { return !b.wanted(p) })}
	b.images = append(b.images, img)
	layout, err := c.layout(b)
	if err != nil {
		b.Logf("%s is left out: %v", c.name, err)
		img.lacks, _, _ = strings.Cut(err.Error(), "\n")
		return b.Ctx.Err()
	}
	b.Logf("preparing %s", c.name)
	next, err := b.nextTag(img, layout)
	if err != nil {
		return err
	}
	for _, tag := range []struct {
		layout *labimage.Image
		name   string
		far    *string
	}{{layout, "old", &img.old}, {next, "now", &img.now}} {
		name := c.name + ":" + tag.name
		if _, err := b.Push(tag.layout, name); err != nil {
			return err
		}
		*tag.far = b.meter.Host() + "/" + name
		img.indexed = filepath.Join(b.Dir, c.name+"-indexed")
		if _, err := b.Output(b.Imgfs, "index", "--quiet", "--cache-dir", img.indexed, *tag.far); err != nil {
			return err
		}
	}
	if err := forget(img.indexed); err != nil {
		return err
	}
	img.size = next.Size()
	if err := b.unpack(img, layout); err != nil {
		return err
	}
	return b.prepareForPeers(img, next)
}

// nextTag makes the image of the second tag: of the same content, with every second layer
// packed anew, the biggest one among them.
func (b *bench) nextTag(img *image, layout *labimage.Image) (*labimage.Image, error) {
	layers := layout.Manifest.Layers
	biggest := 0
	for i := range layers {
		if layers[i].Size > layers[biggest].Size {
			biggest = i
		}
	}
	anew := func(i int) bool { return i%2 == biggest%2 }
	n := 0
	for i := range layers {
		if anew(i) {
			n++
		}
	}
	img.repacked = fmt.Sprintf("%d of %d layers", n, len(layers))
	dir := filepath.Join(b.Work, img.name+"-next")
	err := runner.Once(dir, func(part string) error {
		_, err := layout.RepackSome(part, labimage.OtherGzip, anew)
		return err
	})
	if err != nil {
		return nil, err
	}
	return labimage.Open(dir)
}

// unpack unpacks an image, and shows it read-only.
func (b *bench) unpack(img *image, layout *labimage.Image) error {
	dir := filepath.Join(b.Work, img.name+"-tree")
	err := runner.Once(dir, func(part string) error {
		_, err := b.Output("umoci", "raw", "unpack", "--image", layout.Layout+":"+labimage.Tag, part)
		return err
	})
	if err != nil {
		return err
	}
	if img.tree, err = b.NewDir(); err != nil {
		return err
	}
	_, err = b.Output("mount", "-o", "bind,ro", dir, img.tree)
	return err
}

// forget takes all content out of a cache directory and leaves indexes and profiles.
func forget(cache string) error {
	var errs []error
	for _, what := range []string{"blobs", "contents", "verified"} {
		errs = append(errs, os.RemoveAll(filepath.Join(cache, what)))
	}
	return errors.Join(errs...)
}

// copyOf makes a copy of a cache directory.
func (b *bench) copyOf(cache, name string) (string, error) {
	to := filepath.Join(b.Dir, name)
	_, err := b.Output("cp", "-a", cache, to)
	return to, err
}
