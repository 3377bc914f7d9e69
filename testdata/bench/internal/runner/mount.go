package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NewDir makes a directory to mount on.
func (r *Runner) NewDir() (string, error) {
	r.mounts++
	dir := filepath.Join(r.Dir, fmt.Sprintf("mnt-%d", r.mounts))
	return dir, os.Mkdir(dir, 0o777)
}

// A Mount is an image that imgfs has mounted as a user does: the command
// returns, and a process in the background serves.
type Mount struct {
	Dir   string
	PID   int           // of the process that serves it
	Holds int           // of the process that restarts that one; 0: there is none
	Ready time.Duration // until the command returned
}

// With mounts an image, calls do, and unmounts the image. After an error of do the
// mount stays until the end of the group.
func (r *Runner) With(cache, image string, flags []string, do func(m *Mount) error) error {
	return r.WithAtOnce(cache, image, flags, func(m *Mount) error {
		if err := r.Processes(m); err != nil {
			return err
		}
		return do(m)
	})
}

// WithAtOnce is With where the mount's processes are not looked for, which takes a moment:
// do is called as soon as the image is mounted.
func (r *Runner) WithAtOnce(cache, image string, flags []string, do func(m *Mount) error) error {
	dir, err := os.MkdirTemp(r.Dir, "mnt-") // several may come at the same time
	if err != nil {
		return err
	}
	args := append([]string{"mount", "--quiet", "--cache-dir", cache}, flags...)
	begun := time.Now()
	if _, err := r.Output(r.Imgfs, append(args, image, dir)...); err != nil {
		return err
	}
	if err := do(&Mount{Dir: dir, Ready: time.Since(begun)}); err != nil {
		return err
	}
	if _, err := r.Output(r.Imgfs, "umount", dir); err != nil {
		return err
	}
	for len(r.Servers(dir)) > 0 {
		if err := r.sleep(2 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Processes finds out which processes a mount has now.
func (r *Runner) Processes(m *Mount) error {
	m.PID, m.Holds = 0, 0
	pids := r.Servers(m.Dir)
	for _, pid := range pids {
		to := &m.PID
		if holds(pid) {
			to = &m.Holds
		}
		if *to != 0 {
			return fmt.Errorf("processes of %s: %v, want one that serves and one that holds it", m.Dir, pids)
		}
		*to = pid
	}
	if m.PID == 0 {
		return fmt.Errorf("processes of %s: %v, and none serves it", m.Dir, pids)
	}
	return nil
}

// holds reports whether a process is the one that restarts the one that serves.
func holds(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
	words := strings.Split(string(text), "\x00")
	return len(words) > 1 && words[1] == "__hold"
}

// sleep waits, unless the runner's context ends.
func (r *Runner) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-r.Ctx.Done():
		return r.Ctx.Err()
	}
}

// Servers returns the processes of imgfs that have a path at or below dir among
// their arguments. The bench's directories are its own, and so are they.
func (r *Runner) Servers(dir string) []int {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is a good one
	var pids []int
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(name, "cmdline"))
		if err != nil || len(text) == 0 {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		if args[0] == r.Imgfs && slices.ContainsFunc(args[1:], func(a string) bool { return below(a, dir) }) {
			if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// A Memory is the memory of a process in bytes.
type Memory struct {
	Peak      int64 // VmHWM
	Resident  int64 // VmRSS
	Anonymous int64 // RssAnon, of it
}

// MemoryOf returns the memory of a process now.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	return parseMemory(string(text))
}

func parseMemory(status string) (Memory, error) {
	var m Memory
	for key, to := range map[string]*int64{"VmHWM:": &m.Peak, "VmRSS:": &m.Resident, "RssAnon:": &m.Anonymous} {
		_, rest, ok := strings.Cut("\n"+status, "\n"+key)
		if _, err := fmt.Sscan(rest, to); !ok || err != nil {
			return m, fmt.Errorf("no %s in the status of a process", key)
		}
		*to <<= 10
	}
	return m, nil
}

// Stats is the part of the output of imgfs stats --json that the bench needs.
type Stats struct {
	Total *struct {
		Asked, Requests, Fetched int64
		Waits                    int64
		WaitP99Seconds           float64
	}
	Profile struct {
		State         string
		Files         int
		Fetched, Used int64
	}
	Contents struct {
		ReadBytes int64
	}
	Layers []struct {
		Index struct {
			Origin  string // what made the index
			Vouched string // why it is believed
		}
	}
	FastPaths []struct {
		Name   string
		Active bool
		Why    string
	}
}

// StatsOf returns the statistics of the mount at dir.
func (r *Runner) StatsOf(dir string) (Stats, error) {
	out, err := r.Output(r.Imgfs, "stats", "--json", dir)
	if err != nil {
		return Stats{}, err
	}
	return parseStats(out)
}

func parseStats(text string) (Stats, error) {
	var s Stats
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("imgfs stats: %w", err)
	}
	if s.Total == nil {
		return s, errors.New("imgfs stats: no total")
	}
	return s, nil
}

// Active tells whether a mount uses a fast path, and if not, why.
func (s *Stats) Active(name string) (bool, string) {
	for _, p := range s.FastPaths {
		if p.Name == name {
			return p.Active, p.Why
		}
	}
	return false, "imgfs stats does not name it"
}

// String says which fast paths a mount uses.
func (s *Stats) String() string {
	var on, off []string
	for _, p := range s.FastPaths {
		if p.Active {
			on = append(on, p.Name)
		} else {
			off = append(off, fmt.Sprintf("%s (%s)", p.Name, p.Why))
		}
	}
	return fmt.Sprintf("active: %s; not: %s", strings.Join(on, ", "), strings.Join(off, ", "))
}
