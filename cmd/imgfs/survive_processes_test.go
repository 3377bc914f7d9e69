//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// testProcess is this test binary as another process: its path may be closed to users.
func testProcess(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, "/proc/self/exe")
}

// A helper is a process that works until its stdin ends.
type helper struct {
	name           string
	cmd            *exec.Cmd
	stop           io.Closer
	stdout, stderr bytes.Buffer
	ended          chan error
}

// startHelper starts one as a user, or fails the test. One that fails before it is told to
// stop fails the test at once.
func (s *sandbox) startHelper(name string, who account, plan *survivePlan) *helper {
	s.t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, "plan-"+name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		s.t.Fatal(err)
	}
	h := &helper{name: name, cmd: who.as(testProcess(s.t.Context())), ended: make(chan error, 1)}
	h.cmd.Env, h.cmd.Dir = append(os.Environ(), surviveEnv+"="+path), "/"
	h.cmd.Stdout, h.cmd.Stderr = &h.stdout, &h.stderr
	h.cmd.WaitDelay = 10 * time.Second
	if h.stop, err = h.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		err := h.cmd.Wait()
		if err != nil && s.t.Context().Err() == nil {
			s.t.Errorf("%s: %v\n%s", name, err, &h.stderr)
		}
		h.ended <- err
	}()
	return h
}

// end tells it to stop, and returns what it printed. One that hangs is a failure.
func (h *helper) end(s *sandbox) []byte {
	s.t.Helper()
	const limit = 2 * time.Minute
	_ = h.stop.Close() // it may have ended
	select {
	case err := <-h.ended:
		if err != nil {
			return nil
		}
	case <-time.After(limit):
		s.t.Errorf("%s hangs: %v after it was told to stop it is %s", h.name, limit, waitingWhere(h.cmd.Process.Pid))
		_ = h.cmd.Process.Kill()
		return nil
	}
	return h.stdout.Bytes()
}

// waitingWhere says where in the kernel the threads of a process wait.
func waitingWhere(pid int) string {
	var where string
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	for _, name := range names {
		text, _ := os.ReadFile(name)
		where += " " + string(text)
	}
	return "in" + where
}

// Readers are processes that read a mount in all ways.
type readers struct {
	s    *sandbox
	all  []*helper
	done map[string]int // how often, by the way; after the end
}

// startReaders starts n of them, every other one as s.others if that is somebody.
func (s *survival) startReaders(n int) *readers {
	s.t.Helper()
	r := &readers{s: s.sandbox}
	for i := range n {
		plan := survivePlan{stressPlan: stressPlan{Dir: s.dir, Files: s.content}, Dump: s.dump}
		who := s.account
		if i%2 == 1 && s.others.name != "" {
			who = s.others
		}
		plan.Seed = uint64(time.Now().UnixNano()) + uint64(i)
		tmp, err := os.MkdirTemp(s.sandbox.dir, "copies-")
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.Chown(tmp, who.uid, who.gid); err != nil {
			s.t.Fatal(err)
		}
		plan.Tmp = tmp
		r.all = append(r.all, s.startHelper(fmt.Sprintf("reader-%s-%d", filepath.Base(plan.Dir), i), who, &plan))
	}
	return r
}

// end has them stop, and adds up what they did.
func (r *readers) end() {
	r.s.t.Helper()
	r.done = map[string]int{}
	for _, h := range r.all {
		_ = h.stop.Close() // all at once
	}
	for _, h := range r.all {
		out := h.end(r.s)
		var done map[string]int
		if out != nil {
			if err := json.Unmarshal(out, &done); err != nil {
				r.s.t.Errorf("%s: %v\n%s", h.name, err, out)
			}
		}
		for way, n := range done {
			r.done[way] += n
		}
	}
}

// never are the ways in which none has read.
func (r *readers) never() (ways []string) {
	for _, w := range stressWays {
		if r.done[w.name] == 0 {
			ways = append(ways, w.name)
		}
	}
	for _, w := range surviveWays {
		if r.done[w.name] == 0 {
			ways = append(ways, w.name)
		}
	}
	return ways
}

// A prober is the process that measures pauses.
type prober struct {
	s    *sandbox
	h    *helper
	says string // a file
}

func (s *survival) startProber() *prober {
	s.t.Helper()
	p := &prober{s: s.sandbox, says: filepath.Join(s.sandbox.dir, "answers-"+filepath.Base(s.dir))}
	if err := errors.Join(os.WriteFile(p.says, make([]byte, 8), 0o600), os.Chown(p.says, s.uid, s.gid)); err != nil {
		s.t.Fatal(err)
	}
	p.h = s.startHelper("prober-"+filepath.Base(s.dir), s.account, &survivePlan{stressPlan: stressPlan{Dir: s.dir}, Probe: p.says})
	return p
}

// answer waits until something that is asked from now on is answered.
func (p *prober) answer() {
	p.s.t.Helper()
	const limit = time.Minute
	now := time.Now().UnixNano()
	if !eventually(limit, func() bool {
		text, err := os.ReadFile(p.says)
		return err == nil && len(text) == 8 && int64(binary.LittleEndian.Uint64(text)) > now
	}) {
		p.s.t.Fatalf("nothing is answered for %v; processes: %q", limit, processesKnowing(p.s.dir))
	}
}

// end returns the pauses.
func (p *prober) end() (pauses []pause) {
	p.s.t.Helper()
	lines := json.NewDecoder(bytes.NewReader(p.h.end(p.s)))
	for {
		var one pause
		if err := lines.Decode(&one); err == io.EOF {
			return pauses
		} else if err != nil {
			p.s.t.Errorf("%s: %v", p.h.name, err)
			return pauses
		}
		pauses = append(pauses, one)
	}
}
