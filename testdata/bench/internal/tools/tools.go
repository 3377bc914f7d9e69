// Package tools measures the commands that work on an image without a mount,
// beside the programs that do the same with an image that was pulled.
package tools

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/network"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A bench is one run of the group.
type bench struct {
	*runner.Runner
	settings
	meter     *network.Meter
	node      *labimage.Image
	near, far string // node in the registry itself, and by way of the meter
	cache     string // has the indexes of node, and is warm after warmUp
	unpacked  *tree
	pulled    *podman
}

// settings are other ones in tests.
type settings struct {
	// crane returns the path of the program crane. The error wraps
	// runner.ErrNotBuilt if there is none.
	crane func() (string, error)
}

// New returns the group.
func New(r *runner.Runner) runner.Group {
	return newGroup(r, settings{func() (string, error) { return r.Compile("crane", "CGO_ENABLED=0") }})
}

func newGroup(r *runner.Runner, s settings) runner.Group {
	b := &bench{Runner: r, settings: s}
	return runner.Group{
		Name: "tools", Title: "The commands", Runs: 3, Prepare: b.prepare,
		Sections: []runner.Section{
			{Name: "tar", Title: "The merged tree as a tar", Run: b.tar},
			{Name: "search", Title: "Finding, adding up and searching", Run: b.search},
			{Name: "copy", Title: "Copying the whole tree out", Run: b.copy},
			{Name: "sum", Title: "The SHA-256 of all files", Run: b.sum},
			{Name: "diff", Title: "How two images differ", Run: b.diff},
			{Name: "moved", Title: "What is fetched where only metadata is asked for", Run: b.moved},
		},
		Unable: func() string {
			if os.Geteuid() != 0 {
				return "it needs root, to unpack an image with its owners"
			}
			return runner.Lacking("umoci", "skopeo", "tar", "find", "du", "grep", "cp", "diff", "sha256sum")
		},
		Unmeasured: func(section, why string) { r.Add(figures.Figure{Name: section, Missing: why}) },
	}
}

// prepare puts the image into a registry, and its indexes into a cache directory.
func (b *bench) prepare() error {
	registry, err := b.Registry()
	if err != nil {
		return err
	}
	if b.meter, err = network.NewMeter(registry); err != nil {
		return err
	}
	b.AtEnd(b.meter.Close)
	b.Logf("filling the registry")
	var what string
	if b.node, what, err = b.Node(b.Dir); err != nil {
		return err
	}
	if b.near, b.far, err = b.push(b.node, "node:latest"); err != nil {
		return err
	}
	if b.cache, err = b.indexed("cache", b.near); err != nil {
		return err
	}
	b.Group.Notes = append(b.Group.Notes,
		fmt.Sprintf("image: %s, %d layers, %s compressed, in a registry on loopback", what, len(b.node.Manifest.Layers), figures.Megabytes(b.node.Size())),
		"first: nothing of the image is there; cold: its indexes are; warm: all that the command reads is; what has been unpacked or pulled is warm, too")
	return nil
}

// push copies an image into the registry, and returns its references there.
func (b *bench) push(img *labimage.Image, name string) (near, far string, err error) {
	near, err = b.Push(img, name)
	return near, b.meter.Host() + "/" + name, err
}

// indexed returns a new cache directory that has the indexes of images and no content.
func (b *bench) indexed(name string, images ...string) (string, error) {
	cache := filepath.Join(b.Dir, name)
	for _, image := range images {
		if _, err := b.Output(b.Imgfs, "index", "--quiet", "--cache-dir", cache, image); err != nil {
			return "", err
		}
	}
	return cache, network.ForgetBlobs(cache)
}

// command returns the words of a command of imgfs that uses a cache directory.
func (b *bench) command(cache, name string, args ...string) []string {
	return append([]string{b.Imgfs, name, "--cache-dir", cache}, args...)
}

// discard runs a program whose output goes through a pipe: tar does not read files
// whose content would go to /dev/null.
func (b *bench) discard(args ...string) error {
	cmd := b.Command(args[0], args[1:]...)
	cmd.Stdout = struct{ io.Writer }{io.Discard}
	return b.Finish(cmd)
}

// task is a task that runs a program.
func (b *bench) task(name string, args ...string) runner.Task {
	return runner.Task{Name: name, Run: func() error { return b.discard(args...) }}
}

// seconds are the medians of tasks by their names.
type seconds map[string]float64

// turns runs tasks in turns.
func (b *bench) turns(tasks ...runner.Task) (seconds, error) {
	medians, err := b.InTurns(b.Runs, tasks)
	took := seconds{}
	for i, m := range medians {
		took[tasks[i].Name] = m.Wall.Seconds()
	}
	return took, err
}

// row adds a figure of two tasks. Why says why the peer did not run, if it did not.
func (b *bench) row(took seconds, ours, peer, why, note string) {
	f := figures.Figure{Name: ours, Unit: "s", Ours: took[ours], Peer: peer, Theirs: took[peer], Note: note}
	if f.Theirs == 0 {
		f.PeerMissing = why
	}
	b.Add(f)
}

// A tree is an image unpacked on disk.
type tree struct {
	dir     string
	members members
	took    time.Duration
}

// unpack unpacks an image.
func (b *bench) unpack(name string, img *labimage.Image) (*tree, error) {
	b.Logf("unpacking %s", name)
	t := &tree{dir: filepath.Join(b.Dir, "tree-"+name)}
	var err error
	if t.took, err = b.Timed("umoci", "raw", "unpack", "--image", img.Layout+":"+labimage.Tag, t.dir); err != nil {
		return nil, err
	}
	t.members, err = b.membersOf("tar", "cf", "-", "-C", t.dir, ".")
	return t, err
}

// tree returns node, unpacked.
func (b *bench) tree() (*tree, error) {
	if b.unpacked != nil {
		return b.unpacked, nil
	}
	var err error
	b.unpacked, err = b.unpack("node", b.node)
	return b.unpacked, err
}

// A podman is an image in a store of podman.
type podman struct {
	dir    string // where it is mounted
	lacks  string // why it is not
	pulled time.Duration
}

// podman returns node as podman has pulled and mounted it. What is mounted below the
// runner's directory the runner unmounts.
func (b *bench) podman() (*podman, error) {
	if b.pulled != nil {
		return b.pulled, nil
	}
	p := &podman{lacks: runner.Lacking("podman")}
	if p.lacks == "" {
		store := []string{"--root", filepath.Join(b.Dir, "podman"), "--runroot", filepath.Join(b.Dir, "podman-run")}
		var err error
		b.Logf("podman pull")
		p.pulled, err = b.Timed("podman", append(store, "pull", "--quiet", "--tls-verify=false", b.near)...)
		if err == nil {
			p.dir, err = b.Output("podman", append(store, "image", "mount", b.near)...)
		}
		if err := b.Ctx.Err(); err != nil {
			return nil, err
		}
		p.dir = strings.TrimSpace(p.dir)
		if err != nil {
			b.Logf("%v", err)
			p.lacks = "it cannot pull and mount here"
		}
	}
	b.pulled = p
	return p, nil
}

// look returns the path of crane, or why it is not here.
func (b *bench) look() (program, lacks string, err error) {
	program, err = b.crane()
	if errors.Is(err, runner.ErrNotBuilt) {
		return "", err.Error(), nil
	}
	return program, "", err
}

// next returns the image that node became: the lab's node2, nil if the lab has none, or
// one that is made.
func (b *bench) next() (*labimage.Image, error) {
	layout := filepath.Join(b.Dir, "node2", "layout")
	if b.Corpora != "" {
		layout = filepath.Join(b.Corpora, "built", "node2")
		if _, err := os.Stat(layout); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	} else if err := runner.Once(layout, b.System.WriteNext); err != nil {
		return nil, err
	}
	return labimage.Open(layout)
}
