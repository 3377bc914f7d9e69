package starts

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/engines"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A snapshotter is what containerd takes the files of an image from.
type snapshotter struct {
	name    string        // for containerd
	engine  string        // that has its program; "" if containerd itself has it
	program string        // of that
	kind    *foreign.Kind // of images that it starts before they are there; nil for any
	whole   bool          // it begins with all of an image
	cache   string        // of imgfs; "" for others
}

var snapshotters = []snapshotter{
	{name: "overlayfs", whole: true},
	{name: "stargz", engine: "stargz", program: "stargz", kind: &foreign.EStargz},
	{name: "soci", engine: "soci", program: "soci-snapshotter-grpc", kind: &foreign.SOCI},
}

// A containerd is one that runs, with nothing in it.
type containerd struct {
	b           *bench
	snapshotter *snapshotter
	dir         string
	processes   []*runner.Daemon
}

// buildEngines builds containerd and all snapshotters, and says why that cannot be done; ""
// if it can.
func (b *bench) buildEngines() (lacks string, err error) {
	b.path = map[string]string{}
	for _, name := range []string{"containerd", "runc", "stargz", "soci"} {
		b.Logf("building %s, which takes minutes the first time", name)
		dir, err := engines.Build(b.Ctx, name)
		if errors.Is(err, engines.ErrNotBuilt) {
			return err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		b.path[name] = dir
	}
	return "", nil
}

// An ofPeer is an image as a snapshotter wants it.
type ofPeer struct {
	ref    string // by way of the meter
	traced string // the program whose files it has first; "" for none
	lacks  string // why there is none; "" if there is
}

// prepareForPeers puts an image into the registry as each snapshotter wants it.
func (b *bench) prepareForPeers(img *image, layout *labimage.Image) error {
	img.peers = map[string]ofPeer{}
	if b.engines != "" {
		return nil
	}
	for _, s := range snapshotters {
		of, err := b.prepareFor(&s, img, layout)
		if errors.Is(err, foreign.ErrNone) {
			of, err = ofPeer{lacks: err.Error()}, nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		img.peers[s.name] = of
	}
	return nil
}

func (b *bench) prepareFor(s *snapshotter, img *image, layout *labimage.Image) (ofPeer, error) {
	if s.kind == nil {
		return ofPeer{ref: img.now}, nil
	}
	var of ofPeer
	var first []string
	if *s.kind == foreign.EStargz {
		of.traced = img.programs[0].name
		var err error
		if first, err = b.trace(img, img.programs[0]); err != nil {
			return of, err
		}
	}
	b.Logf("making %s for %s", img.name, s.name)
	dir := filepath.Join(b.Work, img.name+"-"+s.kind.Suffix+of.traced)
	err := runner.Once(dir, func(part string) error {
		_, err := b.others.Make(*s.kind, part, layout, first)
		return err
	})
	if err != nil {
		return of, err
	}
	made, err := labimage.Open(dir)
	if err != nil {
		return of, err
	}
	name := img.name + "-" + s.kind.Suffix
	_, err = b.PushAll(made, name, "now")
	of.ref = b.meter.Host() + "/" + name + ":now"
	return of, err
}

// trace returns the files that a program reads, in their order.
func (b *bench) trace(img *image, p program) ([]string, error) {
	cache, err := b.copyOf(img.indexed, "trace")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(cache)
	if _, err := b.start(cache, img.now, p, nil, false); err != nil {
		return nil, err
	}
	out, err := b.Output(b.Imgfs, "profile", "show", "--json", "--cache-dir", cache, img.now)
	if err != nil {
		return nil, err
	}
	return namesIn(out)
}

// namesIn returns the files in the output of imgfs profile show --json, each once.
func namesIn(text string) ([]string, error) {
	var doc struct {
		Starts []struct{ Reads []struct{ Path string } }
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("imgfs profile show: %w", err)
	}
	var names []string
	for _, s := range doc.Starts {
		for _, r := range s.Reads {
			if !slices.Contains(names, r.Path) {
				names = append(names, r.Path)
			}
		}
	}
	if names == nil {
		return nil, errors.New("imgfs profile show names no file")
	}
	return names, nil
}

// containerd starts containerd and a snapshotter.
func (b *bench) containerd(s *snapshotter) (*containerd, error) {
	dir, err := os.MkdirTemp(b.Dir, "ctd-") // short: sockets are in it
	if err != nil {
		return nil, err
	}
	c := &containerd{b: b, snapshotter: s, dir: dir}
	path := "PATH=" + b.path["containerd"] + ":" + b.path["runc"] + ":" + os.Getenv("PATH")
	if s.proxied() {
		program := []string{filepath.Join(b.path[s.engine], s.program)}
		if s.cache != "" {
			program = []string{b.Imgfs, "snapshotter", "--cache-dir", s.cache}
		}
		err = c.serve(c.socket(), path, append(program, "--address", c.socket(), "--root", c.root())...)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.toml"), []byte(c.config()), 0o666)
	}
	if err == nil {
		err = c.serve(c.address(), path, filepath.Join(b.path["containerd"], "containerd"), "--config", filepath.Join(dir, "config.toml"))
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// proxied reports whether a snapshotter is a program of its own.
func (s *snapshotter) proxied() bool { return s.engine != "" || s.cache != "" }

func (c *containerd) address() string { return filepath.Join(c.dir, "c.sock") }

// socket and root are of the snapshotter.
func (c *containerd) socket() string { return filepath.Join(c.dir, "s.sock") }
func (c *containerd) root() string   { return filepath.Join(c.dir, c.snapshotter.name) }

// serve starts a program that listens on a socket.
func (c *containerd) serve(socket, path string, args ...string) error {
	answers := func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	d, err := c.b.Start(answers, []string{path}, args...)
	if d != nil {
		c.processes = append(c.processes, d)
	}
	return err
}

// config returns the configuration of containerd.
func (c *containerd) config() string {
	var text strings.Builder
	fmt.Fprintf(&text, "version = 3\nroot = %q\nstate = %q\n", filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"))
	fmt.Fprintf(&text, "disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n")
	fmt.Fprintf(&text, "[grpc]\naddress = %q\n", c.address())
	if c.snapshotter.proxied() {
		fmt.Fprintf(&text, "[proxy_plugins.%s]\ntype = \"snapshot\"\naddress = %q\n", c.snapshotter.name, c.socket())
		fmt.Fprintf(&text, "[proxy_plugins.%s.exports]\nroot = %q\nenable_remote_snapshot_annotations = \"true\"\n", c.snapshotter.name, c.root())
	}
	fmt.Fprintf(&text, "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nplatform = \"linux\"\nsnapshotter = %q\n", c.snapshotter.name)
	return text.String()
}

// ctr returns a command of containerd's own client.
func (c *containerd) ctr(args ...string) []string {
	return append([]string{filepath.Join(c.b.path["containerd"], "ctr"), "--address", c.address()}, args...)
}

// pull pulls an image.
func (c *containerd) pull(image string) (time.Duration, error) {
	cmd := c.ctr("image", "pull", "--plain-http", "--snapshotter", c.snapshotter.name, image)
	return c.b.Timed(cmd[0], cmd[1:]...)
}

// run runs a program in a new container.
func (c *containerd) run(image string, p program) (time.Duration, error) {
	cmd := c.ctr("run", "--rm", "--snapshotter", c.snapshotter.name)
	for _, e := range environment {
		cmd = append(cmd, "--env", e)
	}
	cmd = append(append(cmd, image, p.name), p.args...)
	return c.b.Timed(cmd[0], cmd[1:]...)
}

// shims returns the processes that hold containers.
func (c *containerd) shims() []int {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is a good one
	var pids []int
	for _, name := range names {
		text, _ := os.ReadFile(name) // it may have ended
		words := strings.Split(string(text), "\x00")
		if filepath.Base(words[0]) != "containerd-shim-runc-v2" || !slices.Contains(words, c.address()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stop ends all processes and takes away what they made.
func (c *containerd) stop() error {
	var errs []error
	for _, pid := range c.shims() { // of a program that was interrupted
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	for i := len(c.processes) - 1; i >= 0; i-- {
		errs = append(errs, c.processes[i].Stop())
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	for _, dir := range runner.MountsBelow(string(table), c.dir) {
		errs = append(errs, runner.Detach(dir))
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// contain measures the programs of an image with a snapshotter, each from nothing; with one
// that has to have all of an image, the pull of the first counts for all of them.
func (b *bench) contain(l line, img *image, s *snapshotter) (all map[string]pulled, err error) {
	lacks := b.engines
	if lacks == "" {
		lacks = img.peers[s.name].lacks
	}
	if lacks != "" {
		return img.unpulled(s.name, lacks), nil
	}
	all = map[string]pulled{}
	ref := img.peers[s.name].ref
	b.meter.Slow(l.delay, l.mbps)
	defer b.meter.Slow(0, 0)
	var c *containerd
	defer func() {
		if c != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	var pull time.Duration
	for _, p := range img.programs {
		var runs []time.Duration
		for range b.repeats(s) {
			if c == nil {
				if c, err = b.containerd(s); err != nil {
					return nil, err
				}
				b.meter.Forget()
				if pull, err = c.pull(ref); err != nil {
					return nil, err
				}
			}
			took, err := c.run(ref, p)
			if err != nil {
				return nil, err
			}
			requests, moved := b.meter.Traffic()
			b.Logf("%s, %s: pull %v, run %v, %d requests, %d bytes", p.name, s.name, pull, took, requests, moved)
			runs = append(runs, pull+took)
			if !s.whole {
				if err := c.stop(); err != nil {
					return nil, err
				}
				c = nil
			}
		}
		all[p.name] = pulled{peer: s.name, traced: p.name == img.peers[s.name].traced, took: figures.Median(runs)}
	}
	return all, nil
}

// repeats returns how often a program is started with a snapshotter.
func (b *bench) repeats(s *snapshotter) int {
	if s.whole {
		return 1
	}
	return b.Runs
}
