package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Names of rows that wishes are about.
const (
	walkCold   = "`find -printf %s`, cold"
	walkWarm   = "`find -printf %s`, warm"
	sequential = "from its beginning to its end"
	randomMap  = "random pages of a mapping"
	aroundMap  = "the same, where the kernel may read around them"
	startFirst = "the first time, cold"
	startAgain = "the second time"
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
	memory := map[*system][]int64{}
	var inodes uint64
	err = b.each(img, func(s *system) error {
		return b.coldly(s, img, func(m *mounted) error {
			for _, row := range []string{walkCold, walkWarm} {
				took, err := b.timed("find", m.root, "-printf", `%s\n`)
				if err != nil {
					return err
				}
				b.took(row, s.name, took)
			}
			if !s.mine {
				return nil
			}
			n, err := resident(m.daemon.pid)
			memory[s] = append(memory[s], n)
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
		if s.mine {
			b.remember(s, median(memory[s]), inodes)
		}
	}
	return nil
}

// remember is the figure about a server's memory.
func (b *bench) remember(s *system, resident int64, inodes uint64) {
	value, most := float64(resident)/1e6, (30e6+120*float64(inodes))/1e6
	b.report.Figures = append(b.report.Figures, figure{Section: b.section, Name: s.name + ": memory after the walk", Unit: "MB",
		Value: &value, Most: &most, Note: fmt.Sprintf("VmRSS; 30 MB and 120 bytes for each of %d inodes", inodes)})
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
				for _, state := range []string{"cold", "warm"} {
					r, err := b.readAll(m, &img.small, threads)
					if err != nil {
						return err
					}
					b.took(smallRow(threads, state), s.name, r.took)
				}
				return nil
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
	b.note("%s; %d files of at most %d KiB, %s in all", img.what, len(img.small.names), maxSmall>>10, number(float64(img.small.bytes)/1e6, "MB"))
	b.judge("small")
	return nil
}

// big measures one file whose content each system has on disk.
func (b *bench) big() error {
	img, err := b.oneFile("big", b.bigSize)
	if err != nil {
		return err
	}
	err = b.each(img, func(s *system) error {
		err := b.coldly(s, img, func(m *mounted) error {
			r, err := b.readAll(m, &img.all, 1)
			if err != nil {
				return err
			}
			b.took(sequential, s.name, r.took)
			if !s.mine {
				return nil
			}
			asked, err := b.asked(m)
			s.past = asked < img.all.bytes/2
			return err
		})
		if err != nil {
			return err
		}
		return errors.Join(b.mapped(s, img, "random", randomMap), b.mapped(s, img, "around", aroundMap))
	})
	if err != nil {
		return err
	}
	b.note("%s; %s of 4 KiB", img.what, plural(b.pages, "page"))
	for _, s := range b.systems {
		if s.mine && s.past {
			b.note("%s: reads go past the process that serves", s.name)
		} else if s.mine {
			b.note("%s: reads go to the process that serves", s.name)
		}
	}
	b.judge("big")
	return nil
}

// mapped measures pages of a mapping.
func (b *bench) mapped(s *system, img *image, how, row string) error {
	return b.coldly(s, img, func(m *mounted) error {
		r, err := b.read(m.root, img.all.names, how, b.pages)
		b.took(row, s.name, r.took)
		return err
	})
}

// asked returns how many bytes readers have asked the server of a mount for.
func (b *bench) asked(m *mounted) (int64, error) {
	out, err := b.output(b.imgfs, "stats", "--json", m.root)
	if err != nil {
		return 0, err
	}
	var s struct{ Total *struct{ Asked int64 } }
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return 0, fmt.Errorf("imgfs stats: %w", err)
	}
	if s.Total == nil {
		return 0, errors.New("imgfs stats: no total")
	}
	return s.Total.Asked, nil
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
				b.report.Lacks[nameGzip] = err.Error()
				b.judge("packed")
				return nil
			}
			b.took(packedRow(cores), nameGzip, took)
			for _, v := range append([]variant{{}}, b.also...) {
				if err := b.unpack(img, v, cores, list); err != nil {
					return err
				}
			}
		}
	}
	b.note("%s; a new cache directory after `imgfs index --fetch`, and processes that may only use so many cores", img.what)
	b.judge("packed")
	return nil
}

// unpack measures imgfs with a new cache directory, which has the blob and
// the index.
func (b *bench) unpack(img *image, v variant, cores int, list string) error {
	s := b.imgfsAs(v)
	cache := b.cacheOf(s, img)
	if err := errors.Join(os.RemoveAll(cache), b.fetch(img, cache)); err != nil {
		return err
	}
	wrap := []string{"taskset", "-c", list}
	s.mount = func(img *image, dir string) (*daemon, error) { return b.serveImage(img, cache, dir, v, wrap...) }
	return b.coldly(s, img, func(m *mounted) error {
		r, err := b.readAll(m, &img.all, 1, wrap...)
		b.took(packedRow(cores), s.name, r.took)
		return err
	})
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
	err = b.each(img, func(s *system) error {
		return b.coldly(s, img, func(m *mounted) error {
			args := append([]string{m.root}, program...)
			took, err := b.timed("chroot", args...)
			if err != nil {
				return err
			}
			b.took(startFirst, s.name, took)
			var each []time.Duration
			for range b.starts {
				if took, err = b.timed("chroot", args...); err != nil {
					return err
				}
				each = append(each, took)
			}
			b.took(startAgain, s.name, median(each))
			return nil
		})
	})
	if err != nil {
		return err
	}
	b.note("`chroot DIR %s`; the second time: the median of %d", strings.Join(program, " "), b.starts)
	b.judge("start")
	return nil
}

// resident returns how much memory a process has, in bytes.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseResident(string(text))
}

func parseResident(status string) (int64, error) {
	for l := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmRSS in the status of a process")
}

// inodesOf returns how many inodes a mount says that it has.
func inodesOf(dir string) (uint64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	return st.Files, err
}
