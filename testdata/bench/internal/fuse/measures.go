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

// walk measures listing all of the tree, and what memory its server has then.
func (b *bench) walk() error {
	img, err := b.node()
	if err != nil {
		return err
	}
	memory := map[*system][]memoryUse{}
	var inodes uint64
	err = b.each(img, func(s *system) error {
		return b.coldly(s, img, func(m *mounted) error {
			find := func() (time.Duration, error) { return b.timed("find", m.root, "-printf", `%s\n`) }
			if err := b.firstAndAgain(s, walkCold, walkWarm, find); err != nil || !s.mine {
				return err
			}
			use, err := memoryOf(m.daemon.pid)
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
	b.note("%s; %d inodes", img.what, inodes)
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
	b.took(first, s.name, took)
	var each []time.Duration
	for end := time.Now().Add(tooSlow); len(each) == 0 || len(each) < b.again && time.Now().Before(end); {
		if took, err = do(); err != nil {
			return err
		}
		each = append(each, took)
	}
	b.took(again, s.name, median(each))
	return nil
}

func memoryName(system string) string { return system + ": memory after the walk" }

// remember is the figure about a server's memory.
func (b *bench) remember(s *system, use []memoryUse, inodes uint64) {
	var all, own []int64
	for _, u := range use {
		all, own = append(all, u.resident), append(own, u.anonymous)
	}
	value, most := float64(median(all))/1e6, (30e6+120*float64(inodes))/1e6
	b.report.Figures = append(b.report.Figures, figure{Section: b.section, Name: memoryName(s.name), Unit: "MB",
		Value: &value, Most: &most, Note: fmt.Sprintf("VmRSS, of which %s are RssAnon, the rest is the program's file; wanted: 30 MB and 120 bytes for each of %d inodes",
			figures.Number(float64(median(own))/1e6, "MB"), inodes)})
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
					return r.took, err
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
	b.note("%s; %d files of at most %d KiB, %s in all", img.what, len(img.small.names), maxSmall>>10, figures.Number(float64(img.small.bytes)/1e6, "MB"))
	b.judge("small")
	return nil
}

// packed measures a file of which only the blob is on disk, beside gzip.
func (b *bench) packed() error {
	img, err := b.oneFile("packed", b.packedSize)
	if err != nil {
		return err
	}
	blob, err := biggest(filepath.Join(img.layout, "blobs", "sha256"))
	if err != nil {
		return err
	}
	if err := b.everywhere(img); err != nil {
		return err
	}
	for run := range b.runs {
		b.logf("run %d of %d", run+1, b.runs)
		for i, list := range []string{"0", "0,1"} {
			cores := i + 1
			if cores > runtime.NumCPU() {
				continue
			}
			if err := b.dropCaches(); err != nil {
				return err
			}
			took, err := b.timed("taskset", "-c", list, "gzip", "-dc", blob)
			if err != nil {
				return err
			}
			b.took(packedRow(cores), nameGzip, took)
			for _, s := range b.systems {
				if !s.mine || b.report.Lacks[s.name] != "" {
					continue
				}
				r, err := b.unpack(s, img, "taskset", "-c", list)
				if err != nil {
					return err
				}
				b.took(packedRow(cores), s.name, r.took)
			}
		}
	}
	b.note("%s, compressed %s; a new cache directory after `imgfs index --fetch`; reader and server may only use so many cores",
		img.what, img.ratio())
	b.judge("packed")
	return nil
}

// unpack reads an image by way of imgfs with a new cache directory, which has
// the blob and the index; wrap is the command that starts reader and server.
func (b *bench) unpack(s *system, img *image, wrap ...string) (reading, error) {
	cache := b.cacheOf(s, img) + "-new"
	if err := b.fetch(img, cache); err != nil {
		return reading{}, err
	}
	fresh := *s
	fresh.mount = func(img *image, dir string) (*daemon, error) {
		return b.serveImage(img, cache, dir, s.variant, wrap...)
	}
	var r reading
	err := b.coldly(&fresh, img, func(m *mounted) error {
		var err error
		r, err = b.readAll(m, &img.all, 1, wrap...)
		return err
	})
	return r, errors.Join(err, os.RemoveAll(cache))
}

// biggest returns the biggest file of a directory.
func biggest(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	name, size := "", int64(-1)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return "", err
		}
		if info.Size() > size {
			name, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	if name == "" {
		return "", fmt.Errorf("%s is empty", dir)
	}
	return name, nil
}

// programs are what may be started, the best one first.
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
		b.note("%s has no program to start", img.what)
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
	b.note("`chroot DIR %s`; after that: the median of %d", strings.Join(program, " "), b.starts)
	b.judge("start")
	return nil
}

// starting measures one start of a program after the other.
func (b *bench) starting(s *system, args []string) error {
	var each []time.Duration
	for range 2 + b.starts {
		took, err := b.timed("chroot", args...)
		if err != nil {
			return err
		}
		each = append(each, took)
	}
	b.took(startFirst, s.name, each[0])
	b.took(startAgain, s.name, each[1])
	b.took(startLater, s.name, median(each[2:]))
	return nil
}

// A memoryUse is what memory a process has, in bytes.
type memoryUse struct {
	resident  int64 // VmRSS
	anonymous int64 // RssAnon, of it
}

func memoryOf(pid int) (memoryUse, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memoryUse{}, err
	}
	return parseMemory(string(text))
}

func parseMemory(status string) (memoryUse, error) {
	var use memoryUse
	for key, to := range map[string]*int64{"VmRSS:": &use.resident, "RssAnon:": &use.anonymous} {
		_, rest, ok := strings.Cut("\n"+status, "\n"+key)
		if _, err := fmt.Sscan(rest, to); !ok || err != nil {
			return use, fmt.Errorf("no %s in the status of a process", key)
		}
		*to <<= 10
	}
	return use, nil
}

// inodesOf returns how many inodes a mount says that it has.
func inodesOf(dir string) (uint64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	return st.Files, err
}
