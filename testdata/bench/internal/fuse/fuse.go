// Package fuse measures a mounted image beside other file systems: imgfs with
// passthrough and io_uring and without, squashfuse_ll, overlayfs, erofs and bindfs
// show the same tree, which is measured in turns with each of them and without a
// mount.
//
// It needs root, for mounts and for dropping the kernel's caches. All files lie on
// one ext4: the machine's own if the directory for images is on one, else one in a
// file.
package fuse

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// Options are the settings of this group alone.
type Options struct {
	Work    string    // where images are kept for the next run; "" for nowhere
	Systems []string  // that are measured; nil for all
	Also    []Variant // more columns
	Loop    bool      // have a file system in a file for it all, in any case
}

// A bench is one run of the group.
type bench struct {
	*runner.Runner
	settings
	disk    string // where everything lies that is read
	systems []*system
	lacks   map[string]string // why a system was left out
	images  map[string]*image
}

// settings are smaller in tests.
type settings struct {
	Options
	warm bool // do not drop the kernel's caches
	// sizes of made files
	bigSize, packedSize int64
	diskSize            int64         // of the file system, at most
	pages               int           // that are read from a mapping
	starts              int           // of a program, one after the other
	again               int           // how often warm accesses are measured in a run
	patience            time.Duration // with imgfs, to keep a file or to read past itself
}

// New returns the group.
func New(r *runner.Runner, opts Options) runner.Group {
	return newGroup(r, settings{Options: opts, bigSize: 1 << 30, packedSize: 100e6, diskSize: 32 << 30, pages: 2000, starts: 20, again: 3, patience: 20 * time.Second})
}

func newGroup(r *runner.Runner, s settings) runner.Group {
	b := &bench{Runner: r, settings: s, images: map[string]*image{}, lacks: map[string]string{}}
	return runner.Group{
		Name: "fuse", Title: "The mount beside other file systems", Runs: 3, Flags: s.flags(),
		Unable: b.unable, Unmeasured: b.unmeasured, Prepare: b.prepare,
		Sections: []runner.Section{
			{Name: "walk", Title: "Walking the tree", Run: b.walk},
			{Name: "small", Title: "Reading all small files", Run: b.small},
			{Name: "big", Title: "Reading one big file", Run: b.big},
			{Name: "packed", Title: "Reading what is on disk only as the registry gave it", Run: b.packed, Needs: []string{"taskset", "gzip"}},
			{Name: "start", Title: "Starting a program", Run: b.start, Needs: []string{"chroot"}},
		},
	}
}

// flags returns the flags that repeat a section, besides the usual ones.
func (o *Options) flags() string {
	text := ""
	if o.Systems != nil {
		text += fmt.Sprintf(" -systems '%s'", strings.Join(o.Systems, ","))
	}
	if o.Loop {
		text += " -loop"
	}
	for _, v := range o.Also {
		text += fmt.Sprintf(" -also '%s: %s'", v.label, strings.Join(append(v.environment, v.flags...), " "))
	}
	return text
}

// prepare finds the place for all that is read, and the systems.
func (b *bench) prepare() error {
	if b.Work == "" {
		b.Work = b.Dir
	} else if work, err := filepath.Abs(b.Work); err != nil {
		return err
	} else {
		b.Work = work
	}
	if err := b.place(); err != nil {
		return err
	}
	var err error
	if b.systems, err = b.allSystems(); err != nil {
		return err
	}
	for _, s := range b.systems {
		b.Group.Systems = append(b.Group.Systems, figures.System{Name: s.name, Title: s.title})
	}
	b.Group.Systems = append(b.Group.Systems, figures.System{Name: nameGzip, Title: "GNU gzip of the layer's blob"})
	return nil
}

// leaveOut measures nothing more with a system.
func (b *bench) leaveOut(s *system, why error) {
	b.Logf("%s is left out: %v", s.name, why)
	b.lacks[s.name], _, _ = strings.Cut(why.Error(), "\n")
	for i := range b.Group.Systems {
		if b.Group.Systems[i].Name == s.name {
			b.Group.Systems[i].Lacks = b.lacks[s.name]
		}
	}
}

// here returns the systems that were not left out.
func (b *bench) here() []*system {
	return slices.DeleteFunc(slices.Clone(b.systems), func(s *system) bool { return b.lacks[s.name] != "" })
}

// unmeasured adds the figures of a section that cannot be measured.
func (b *bench) unmeasured(section, why string) {
	for i := range wishes {
		if w := &wishes[i]; w.section == section {
			b.Add(w.figure(nameImgfs, why))
		}
	}
	if section == "walk" {
		b.Add(figures.Figure{Name: memoryName(nameImgfs), Unit: "MB", Missing: why, AtMost: figures.Most(memoryBase)})
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
	return cmp.Or(runner.Lacking("find", "df", "umoci", "skopeo", b.Imgfs), missing)
}

// dropCaches makes the kernel forget all pages and inodes that it can.
func (b *bench) dropCaches() error {
	if b.warm {
		return nil
	}
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// unmount unmounts the tree, and waits for the end of the process that served it.
func (m *mounted) unmount() error {
	if m.dir == "" {
		return nil
	}
	var err error
	for range 200 { // a process that has read from it may still be ending
		if err = syscall.Unmount(m.dir, 0); err != syscall.EBUSY {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", m.dir, err)
	}
	if m.daemon != nil {
		err = m.daemon.Ended()
	}
	if m.undo != nil {
		err = errors.Join(err, m.undo())
	}
	return errors.Join(err, os.Remove(m.dir))
}
