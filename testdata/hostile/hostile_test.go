//go:build linux

package hostile

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A scale is how big the attacks are, and what imgfs may take.
type scale struct {
	full     bool
	flags    []string
	cache    int64 // --cache-size, in bytes
	diskSize int64
	patience time.Duration // for one command
	limit    bounds
}

// scales are the two sizes. The small one leaves much time, as other tests run
// beside it.
var scales = map[bool]scale{
	true: {
		full: true, flags: []string{"--cache-size=256M"}, cache: 256 << 20, diskSize: 8 << 30, patience: 10 * time.Minute,
		limit: bounds{memory: 1200 << 20, cpu: time.Minute, disk: 64 << 20, ending: time.Second},
	},
	false: {
		flags: []string{"--cache-size=32M", "--max-metadata=16M", "--max-layer-size=768M"}, cache: 32 << 20, diskSize: 1 << 30, patience: 5 * time.Minute,
		limit: bounds{memory: 300 << 20, cpu: 20 * time.Second, disk: 64 << 20, ending: 5 * time.Second},
	},
}

func (s scale) n(a Attack) int {
	if s.full {
		return a.Full
	}
	return a.Small
}

// refused is what the error says if the attack has to be refused, or "".
func (s scale) refused(a Attack) string {
	if !s.full && a.SmallOpens {
		return ""
	}
	return a.Refused
}

// setUp makes the jail, or says why there is none.
func setUp(t *testing.T) *jail {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root, to make a disk")
	}
	for _, p := range []string{"go", "mkfs.ext4", "mount", "umount", "fusermount3"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err == nil {
		f.Close()
	} else {
		missing = append(missing, err.Error())
	}
	switch need := strings.Join(missing, ", "); {
	case need != "" && os.Getenv("CI") == "true":
		t.Fatal("needs ", need)
	case need != "":
		t.Skip("needs ", need)
	}
	return newJail(t, scales[os.Getenv("IMGFS_HOSTILE") == "full"])
}

// TestHostile opens every attack as an image in a layout, and ends it by a
// signal as well. IMGFS_HOSTILE=full makes them as big as somebody might.
func TestHostile(t *testing.T) {
	testenv.Slow(t)
	j := setUp(t)
	r := newReport(j)
	for _, a := range Attacks() {
		t.Run(strings.ReplaceAll(a.Name, " ", "-"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layout")
			m := NewImage(dir)
			a.Make(m, j.size.n(a))
			must(t, m.Write())
			defer os.RemoveAll(dir)
			v := &verdict{t: t, j: j, attack: a, image: "oci:" + dir}
			v.open()
			r.add(v, fmt.Sprint(j.size.n(a), " ", a.Kind))
		})
	}
	r.print(t)
}

// A report is the table of a test.
type report struct {
	j     *jail
	table strings.Builder
}

func newReport(j *jail) *report {
	r := &report{j: j}
	figures.WriteHead(&r.table, "attack", "of", "ends with", "peak MB", "CPU s", "disk MB", "ms to end")
	return r
}

func (r *report) add(v *verdict, of string) {
	mb := func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/1e6) }
	u := v.most
	figures.WriteRow(&r.table, v.attack.Name, of, v.ends, mb(u.memory), fmt.Sprintf("%.1f", u.cpu.Seconds()), mb(u.disk), fmt.Sprint(u.ending.Milliseconds()))
}

func (r *report) print(t *testing.T) {
	group := ""
	if r.j.group != "" {
		group = ", a memory cgroup"
	}
	t.Logf("limits of the kernel: CPU, descriptors%s\n\n%s\n", group, &r.table)
}

// A verdict is what became of one attack.
type verdict struct {
	t      *testing.T
	j      *jail
	attack Attack
	image  string
	most   usage // of all runs
	ends   string
}

// open goes all ways into an image.
func (v *verdict) open() {
	n := v.j.size.n(v.attack)
	v.j.empty(v.t)
	var names lines
	first := v.run(&names, "ls", v.image, cmp.Or(v.attack.List, "/"))
	if refused := v.j.size.refused(v.attack); refused != "" {
		v.refused(first, refused)
	} else {
		v.opens(first, names.n, v.attack.Names(n))
		v.mount()
	}
	v.interrupt(first)
}

// run runs a command to its end, and judges what it took.
func (v *verdict) run(also io.Writer, args ...string) usage {
	v.t.Helper()
	r := v.j.start(v.t, also, args...)
	u := r.wait()
	v.judge(u)
	return u
}

func (v *verdict) judge(u usage) {
	v.t.Helper()
	limit := v.j.size.limit
	for _, c := range []struct {
		what     string
		got, max int64
	}{
		{"bytes of memory", u.memory, limit.memory},
		{"ns of CPU", int64(u.cpu), int64(limit.cpu)},
		{"bytes of disk", u.disk, v.j.size.cache + limit.disk},
		{"ns from a signal to the end", int64(u.ending), int64(limit.ending)},
	} {
		if c.got > c.max {
			v.t.Errorf("%d %s, at most %d", c.got, c.what, c.max)
		}
	}
	if strings.Contains(u.stderr, "goroutine ") {
		v.t.Errorf("a dump of goroutines: %s", u.stderr)
	}
	v.most.memory, v.most.cpu = max(v.most.memory, u.memory), max(v.most.cpu, u.cpu)
	v.most.disk, v.most.ending = max(v.most.disk, u.disk), max(v.most.ending, u.ending)
}

func (v *verdict) refused(u usage, why string) {
	v.t.Helper()
	v.ends = v.oneLine(u.stderr)
	if u.code != 1 || !strings.Contains(u.stderr, why) {
		v.t.Errorf("exit code %d, %q; want 1 and an error with %q", u.code, u.stderr, why)
	}
}

// oneLine is the error that a command ended with, for the table.
func (v *verdict) oneLine(text string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, ": indexed ") {
			continue
		}
		line = strings.TrimPrefix(strings.TrimSpace(line), "imgfs: ")
		line = strings.TrimLeft(strings.Replace(line, v.image, "", 1), ": ")
		return line[:min(len(line), 160)]
	}
	return "nothing said"
}

// opens checks the tree: how many names it has in one place, and what is in
// the small file.
func (v *verdict) opens(u usage, got, want int) {
	v.t.Helper()
	v.ends = "the right tree"
	if u.code != 0 || got != want {
		v.t.Errorf("exit code %d, %d names, %q; want %d names", u.code, got, u.stderr, want)
	}
	if u := v.run(nil, "cat", v.image, "small"); u.code != 0 || u.stdout != smallContent {
		v.t.Errorf("cat: exit code %d, %q, %q; want %q", u.code, u.stdout, u.stderr, smallContent)
	}
}

// mount reads the small file through a mount.
func (v *verdict) mount() {
	dir := v.j.dir()
	ready := newAwaited("mounted ")
	r := v.j.start(v.t, ready, "mount", "-f", v.image, dir)
	ended := make(chan usage)
	go func() { ended <- r.wait() }()
	select {
	case u := <-ended:
		v.t.Errorf("mount: exit code %d, %q", u.code, u.stderr)
		v.judge(u)
		return
	case <-ready.seen:
	}
	if got, err := os.ReadFile(filepath.Join(dir, "small")); err != nil || string(got) != smallContent {
		v.t.Errorf("through the mount: %q, %v; want %q", got, err, smallContent)
	}
	r.signal(syscall.SIGTERM)
	u := <-ended
	v.judge(u)
	if u.code != 0 {
		v.t.Errorf("mount: exit code %d, %q", u.code, u.stderr)
	}
}

// interrupt ends the first reading, and the reading from what that keeps, by
// a signal in the middle.
func (v *verdict) interrupt(first usage) {
	v.j.empty(v.t)
	const tooShort = 200 * time.Millisecond
	for range 2 {
		if first.wall < tooShort {
			return
		}
		r := v.j.start(v.t, nil, "ls", v.image)
		timer := time.AfterFunc(first.wall/2, func() { r.signal(syscall.SIGTERM) })
		u := r.wait()
		timer.Stop()
		v.judge(u)
		if v.j.size.refused(v.attack) != "" {
			return // nothing is kept of it
		}
		v.run(nil, "ls", v.image) // reads what the signal has left unread
		first = v.run(nil, "ls", v.image)
	}
}

// An awaited writer tells when some text passes, at the beginning of a line.
type awaited struct {
	text string
	seen chan struct{}
}

func newAwaited(text string) *awaited { return &awaited{text, make(chan struct{})} }

func (a *awaited) Write(p []byte) (int, error) {
	if a.text != "" && slices.ContainsFunc(strings.Split(string(p), "\n"), func(line string) bool { return strings.HasPrefix(line, a.text) }) {
		a.text = ""
		close(a.seen)
	}
	return len(p), nil
}
