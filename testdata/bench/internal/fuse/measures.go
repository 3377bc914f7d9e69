package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// Names of rows that wishes are about.
const (
	walkCold   = "`find -printf %s`, cold"
	walkWarm   = "`find -printf %s`, warm"
	sequential = "from its beginning to its end"
	freshMount = "the same, the first time in a mount"
	chunksOnly = "the same, of compressed chunks alone"
	randomMap  = "random pages of a mapping"
	aroundMap  = "the same, where the kernel may read around them"
	startFirst = "the first time, cold"
	startAgain = "the second time"
	startLater = "after that"
)

func smallRow(threads int, state string) string {
	return fmt.Sprintf("open, read, close from %s, %s", plural(threads, "thread"), state)
}

func packedRow(cores int) string { return "on " + plural(cores, "core") }

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// walk measures listing all of the tree, and the memory of its server after it.
func (b *bench) walk() error {
	img, err := b.node()
	if err != nil {
		return err
	}
	memory := map[*system][]runner.Memory{}
	var inodes uint64
	err = b.each(img, func(s *system) error {
		return b.coldly(s, img, func(m *mounted) error {
			find := func() (time.Duration, error) { return b.Timed("find", m.root, "-printf", `%s\n`) }
			if err := b.firstAndAgain(s, walkCold, walkWarm, find); err != nil || !s.mine {
				return err
			}
			use, err := runner.MemoryOf(m.daemon.PID)
			memory[s] = append(memory[s], use)
			if err == nil {
				inodes, err = inodesOf(m.root)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	b.Note("%s; %d inodes", img.what, inodes)
	b.judge("walk")
	for _, s := range b.systems {
		if len(memory[s]) > 0 {
			b.remember(s, memory[s], inodes)
		}
	}
	return nil
}

// tooSlow is when nothing is measured again in a run.
const tooSlow = 4 * time.Second

// firstAndAgain measures something once, and then again, of which the median
// counts.
func (b *bench) firstAndAgain(s *system, first, again string, do func() (time.Duration, error)) error {
	took, err := do()
	if err != nil {
		return err
	}
	b.Now.Took(first, s.name, took)
	var each []time.Duration
	for end := time.Now().Add(tooSlow); len(each) == 0 || len(each) < b.again && time.Now().Before(end); {
		if took, err = do(); err != nil {
			return err
		}
		each = append(each, took)
	}
	b.Now.Took(again, s.name, figures.Median(each))
	return nil
}

// memoryBase is how many MB a server may take without any inode.
const memoryBase = 30

func memoryName(system string) string { return system + ": memory after the walk" }

// remember is the figure about a server's memory.
func (b *bench) remember(s *system, use []runner.Memory, inodes uint64) {
	var all, own []int64
	for _, u := range use {
		all, own = append(all, u.Resident), append(own, u.Anonymous)
	}
	most := memoryBase + 120*float64(inodes)/1e6
	b.Add(figures.Figure{Name: memoryName(s.name), Unit: "MB", Ours: float64(figures.Median(all)) / 1e6, AtMost: &most,
		Note: fmt.Sprintf("VmRSS, of which %s are RssAnon, the rest is the program's file; wanted: %d MB and 120 bytes for each of %d inodes",
			figures.Megabytes(figures.Median(own)), memoryBase, inodes)})
}

// small measures reading all files of at most maxSmall.
func (b *bench) small() error {
	img, err := b.node()
	if err != nil {
		return err
	}
	err = b.each(img, func(s *system) error {
		for _, threads := range []int{1, 4} {
			err := b.coldly(s, img, func(m *mounted) error {
				return b.firstAndAgain(s, smallRow(threads, "cold"), smallRow(threads, "warm"), func() (time.Duration, error) {
					r, err := b.readAll(m, &img.small, threads)
					return r.Took, err
				})
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.Note("%s; %d files of at most %d KiB, %s in all", img.what, len(img.small.names), maxSmall>>10, figures.Megabytes(img.small.bytes))
	b.judge("small")
	return nil
}

// packed measures a file of which only the blob is on disk, beside gzip.
func (b *bench) packed() error {
	img, err := b.oneFile("packed", b.packedSize)
	if err != nil {
		return err
	}
	if err := b.everywhere(img); err != nil {
		return err
	}
	var tasks []runner.Task
	for i, list := range []string{"0", "0,1"} {
		cores := i + 1
		if cores > runtime.NumCPU() {
			continue
		}
		tasks = append(tasks, runner.Task{Name: nameGzip, Run: func() error {
			if err := b.dropCaches(); err != nil {
				return err
			}
			took, err := b.Timed("taskset", "-c", list, "gzip", "-dc", img.Blob(img.Manifest.Layers[0].Digest))
			b.Now.Took(packedRow(cores), nameGzip, took)
			return err
		}})
		for _, s := range b.here() {
			if !s.mine {
				continue
			}
			tasks = append(tasks, runner.Task{Name: s.name, Run: func() error {
				r, err := b.unpack(s, img, "taskset", "-c", list)
				b.Now.Took(packedRow(cores), s.name, r.Took)
				return err
			}})
		}
	}
	if _, err := b.InTurns(b.Runs, tasks); err != nil {
		return err
	}
	b.Note("%s, compressed %s; a new cache directory after `imgfs index --fetch`; reader and server may only use so many cores",
		img.what, img.ratio())
	b.judge("packed")
	return nil
}

// unpack reads an image by way of imgfs with a new cache directory, which has
// the blob and the index; wrap is the command that starts reader and server.
func (b *bench) unpack(s *system, img *image, wrap ...string) (runner.Reading, error) {
	cache := b.cacheOf(s, img) + "-new"
	if err := b.fetch(img, cache); err != nil {
		return runner.Reading{}, err
	}
	fresh := *s
	fresh.mount = func(img *image, dir string) (*runner.Daemon, error) {
		return b.serveImage(img, cache, dir, s.variant, wrap...)
	}
	var r runner.Reading
	err := b.coldly(&fresh, img, func(m *mounted) error {
		var err error
		r, err = b.readAll(m, &img.all, 1, wrap...)
		return err
	})
	return r, errors.Join(err, os.RemoveAll(cache))
}

// programs are the programs to start, the best one first.
var programs = [][]string{{"/usr/bin/python3", "-c", "pass"}, {"/usr/bin/node", "-e", "0"}, {"/bin/sh", "-c", ":"}}

// start measures a program with the image as its root.
func (b *bench) start() error {
	img, err := b.node()
	if err != nil {
		return err
	}
	var program []string
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(img.tree, p[0])); err == nil {
			program = p
			break
		}
	}
	if program == nil {
		b.Note("%s has no program to start", img.what)
		b.judge("start")
		return nil
	}
	// The second time is once in a mount.
	for range b.again {
		err = b.each(img, func(s *system) error {
			return b.coldly(s, img, func(m *mounted) error { return b.starting(s, append([]string{m.root}, program...)) })
		})
		if err != nil {
			return err
		}
	}
	b.Note("`chroot DIR %s`; after that: the median of %d", strings.Join(program, " "), b.starts)
	b.judge("start")
	return nil
}

// starting measures one start of a program after the other.
func (b *bench) starting(s *system, args []string) error {
	var each []time.Duration
	for range 2 + b.starts {
		took, err := b.Timed("chroot", args...)
		if err != nil {
			return err
		}
		each = append(each, took)
	}
	b.Now.Took(startFirst, s.name, each[0])
	b.Now.Took(startAgain, s.name, each[1])
	b.Now.Took(startLater, s.name, figures.Median(each[2:]))
	return nil
}

// inodesOf returns how many inodes a mount says that it has.
func inodesOf(dir string) (uint64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	return st.Files, err
}
