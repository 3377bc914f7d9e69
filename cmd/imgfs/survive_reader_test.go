//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// surviveEnv holds the path of the plan of a process that reads or probes a mount whose
// server dies. A mount may be closed to all but one user, so these are no goroutines.
const surviveEnv = "IMGFS_TEST_SURVIVE"

// A survivePlan is what such a process is told. It goes on until the end of its stdin.
type survivePlan struct {
	stressPlan

	// Probe is the file that tells since when there are answers, of a process that measures
	// pauses in place of reading.
	Probe string
	// Dump is the file with what the whole tree shows.
	Dump string
}

// comparedBytes is what a reader says, beside how often it read in which way.
const comparedBytes = "bytes"

// surviveProgram is the path of a static busybox in the image.
const surviveProgram = "bin/busybox"

// survive is the main function of such a process.
func survive(path string, stdin io.Reader, stdout io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var plan survivePlan
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	stop := &atomic.Bool{}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		stop.Store(true)
	}()
	if plan.Probe != "" {
		return probe(plan.Dir, plan.Probe, stop, stdout)
	}
	r := &surviveReading{plan: &plan, stop: stop, held: map[string]*os.File{},
		stressReading: stressReading{plan: &plan.stressPlan, rnd: rand.New(rand.NewPCG(plan.Seed, 19)), done: map[string]int{}}}
	if r.dump, err = os.ReadFile(plan.Dump); err != nil {
		return err
	}
	err = r.run()
	if r.shell != nil {
		err = errors.Join(err, r.shell.end())
	}
	if err != nil {
		return err
	}
	r.done[comparedBytes] = int(compared.Load())
	return json.NewEncoder(stdout).Encode(r.done)
}

// A surviveReading reads in all ways at random, as a stressReading does and more, and
// compares everything.
type surviveReading struct {
	stressReading

	plan  *survivePlan
	stop  *atomic.Bool
	dump  []byte
	held  map[string]*os.File // open from the beginning to the end
	shell *heldShell
}

// surviveWays are those that stressWays have not.
var surviveWays = []struct {
	name string
	do   func(r *surviveReading, f *stressFile) error
}{
	{"walk", (*surviveReading).walk},
	{"held", (*surviveReading).heldOpen},
	{"program", (*surviveReading).program},
	{"shell", (*surviveReading).askShell},
}

// run reads until it is told to stop. Every way comes at least once.
func (r *surviveReading) run() error {
	all := len(stressWays) + len(surviveWays)
	order := r.rnd.Perm(all)
	for i := 0; i < all || !r.stop.Load(); i++ {
		f := &r.plan.Files[r.rnd.IntN(len(r.plan.Files))]
		n := r.rnd.IntN(all)
		if i < all {
			n = order[i]
		}
		var err error
		name := ""
		begun := time.Now()
		if n < len(stressWays) {
			name = stressWays[n].name
			err = stressWays[n].read(&r.stressReading, f, filepath.Join(r.plan.Dir, f.Name))
		} else {
			name = surviveWays[n-len(stressWays)].name
			err = surviveWays[n-len(stressWays)].do(r, f)
		}
		if err != nil {
			return fmt.Errorf("%s, begun at %s, failed at %s: %w", name, begun.Format(clock), time.Now().Format(clock), err)
		}
		r.done[name]++
	}
	return nil
}

// clock is how times are written that are to be compared with those of kills.
const clock = "15:04:05.000000"

// walk looks at everything of every file.
func (r *surviveReading) walk(*stressFile) error {
	var got bytes.Buffer
	if err := printDump(&got, r.plan.Dir); err != nil {
		return err
	}
	if bytes.Equal(got.Bytes(), r.dump) {
		return nil
	}
	want := bufio.NewScanner(bytes.NewReader(r.dump))
	for line := range strings.Lines(got.String()) {
		if want.Scan(); strings.TrimSuffix(line, "\n") != want.Text() {
			return fmt.Errorf("got %swant %s", line, want.Text())
		}
	}
	return errors.New("the tree ends too early")
}

// heldOpen reads random places of a file that stays open.
func (r *surviveReading) heldOpen(f *stressFile) error {
	const most = 10
	if len(r.held) >= most {
		for i := range r.plan.Files {
			if r.held[r.plan.Files[i].Name] != nil && r.rnd.IntN(most) == 0 {
				f = &r.plan.Files[i]
			}
		}
	}
	file := r.held[f.Name]
	if file == nil {
		var err error
		if file, err = os.Open(filepath.Join(r.plan.Dir, f.Name)); err != nil {
			return err
		}
		if len(r.held) < most {
			r.held[f.Name] = file
		} else {
			defer file.Close()
		}
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	for range 10 {
		off, n := r.place(f, int64(len(buf)))
		got, err := file.ReadAt(buf[:n], off)
		if err != nil && err != io.EOF {
			return err
		}
		if err := f.checkRead(buf[:got], off, n); err != nil {
			return err
		}
	}
	return nil
}

// busybox returns a command that is run from the mount, by root in a chroot.
func (r *surviveReading) busybox(args ...string) *exec.Cmd {
	if os.Geteuid() != 0 {
		return exec.Command(filepath.Join(r.plan.Dir, surviveProgram), args...)
	}
	cmd := exec.Command("/"+surviveProgram, args...)
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: r.plan.Dir}
	return cmd
}

// inside is the path of a file for such a command.
func (r *surviveReading) inside(f *stressFile) string {
	if os.Geteuid() != 0 {
		return filepath.Join(r.plan.Dir, f.Name)
	}
	return "/" + f.Name
}

// program runs a program of the image that reads a file.
func (r *surviveReading) program(f *stressFile) error {
	cmd := r.busybox("sha256sum", r.inside(f))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("sha256sum %s: %w", f.Name, err)
	}
	if sum, _, _ := strings.Cut(string(out), " "); sum != f.SHA256 {
		return fmt.Errorf("%s: SHA-256 %s, want %s", f.Name, sum, f.SHA256)
	}
	return nil
}

// A heldShell is a shell of the image that runs from the beginning to the end.
type heldShell struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// askShell has the shell read a file, by itself and by an applet.
func (r *surviveReading) askShell(f *stressFile) error {
	if r.shell == nil {
		cmd := r.busybox("sh")
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		r.shell = &heldShell{cmd, in, bufio.NewReader(out)}
	}
	program := "/" + surviveProgram
	if os.Geteuid() != 0 {
		program = filepath.Join(r.plan.Dir, surviveProgram)
	}
	if _, err := fmt.Fprintf(r.shell.in, "%s wc -c <%s\n", program, r.inside(f)); err != nil {
		return err
	}
	line, err := r.shell.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("wc -c %s: %w", f.Name, err)
	}
	if got, want := strings.TrimSpace(line), fmt.Sprint(f.Size); got != want {
		return fmt.Errorf("wc -c %s: got %s, want %s", f.Name, got, want)
	}
	return nil
}

// end ends the shell, which must be a good end.
func (s *heldShell) end() error {
	return errors.Join(s.in.Close(), s.cmd.Wait())
}

// A pause is a time without an answer.
type pause struct {
	Began time.Time
	Took  time.Duration
}

// probe asks the server again and again, on each processor, and prints each time
// that is longer than some, a line each. The file says when the last question that was
// answered was asked, in ns since 1970.
func probe(dir, file string, stop *atomic.Bool, stdout io.Writer) error {
	const (
		interval = 2 * time.Millisecond
		some     = 5 * time.Millisecond
	)
	says, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer says.Close()
	pauses, failed := make(chan pause), make(chan error)
	for cpu := range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread() // for ever: the thread has one processor
			var set unix.CPUSet
			set.Set(cpu)
			_ = unix.SchedSetaffinity(0, &set) // anywhere it measures, too
			last := time.Now()
			for !stop.Load() {
				// The kernel does not keep what this says.
				var st unix.Statfs_t
				asked := time.Now()
				if _, err := again(func() (int, error) { return 0, unix.Statfs(dir, &st) }); err != nil {
					failed <- fmt.Errorf("statfs at %s: %w", time.Now().Format(clock), err)
					return
				}
				if _, err := says.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(asked.UnixNano())), 0); err != nil {
					failed <- err
					return
				}
				now := time.Now()
				if took := now.Sub(last); took > some {
					pauses <- pause{last, took}
				}
				last = now
				time.Sleep(interval)
			}
			failed <- nil
		}()
	}
	out := json.NewEncoder(stdout)
	for left := runtime.NumCPU(); left > 0; {
		select {
		case p := <-pauses:
			if err := out.Encode(p); err != nil {
				return err
			}
		case err := <-failed:
			if err != nil {
				return err
			}
			left--
		}
	}
	return nil
}
