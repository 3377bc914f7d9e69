package holder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes this program a server that serves nothing.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "fake" {
		os.Exit(fakeServer(os.Args[2]))
	}
	os.Exit(m.Run())
}

// A fake says how a fake server behaves.
type fake struct {
	Events   string // a datagram socket that is told what happens
	Sockets  string
	Patience time.Duration
	Times    [4]time.Duration // window, deaths, soon, relaunch
	Log      string
	Ignore   bool   // start the first server with SIGHUP ignored
	Ours     bool   // the first server has our variables in its environment
	User     int    // whose processes they are; 0: this user's
	Name     string // "": 0-99
	Held     int    // how many files are given to the holder by the first server

	// Of successors.
	Hang     bool   // never say that it serves
	Exit     int    // end at once with this exit code; 0: do not
	ExitSoon bool   // ... after it has said that it serves
	Refuse   string // when it is to be standby
	Fail     bool   // when it was, and has begun
	Flag     string // a file: successors behave like that only while it is there
}

// An event is what a fake server tells.
type event struct {
	PID    int
	What   string // first, starts, serves, go, lost
	Died   int
	Holder int
	Held   []string // contents
	Extra  string
}

func (f *fake) tell(e event) {
	c, err := net.Dial("unixgram", f.Events)
	if err != nil {
		return // the test is over
	}
	defer c.Close()
	e.PID = os.Getpid()
	text, _ := json.Marshal(e)
	c.Write(text)
}

func (f *fake) config(arg string) Config {
	c := Config{Args: []string{"fake", arg}, Patience: f.Patience, Name: cmp.Or(f.Name, "0-99"), Sockets: f.Sockets, Dir: "/mnt/x",
		times: times{window: f.Times[0], deaths: int(f.Times[1]), soon: f.Times[2], relaunch: f.Times[3]}}
	if f.Log != "" {
		c.Log, _ = os.OpenFile(f.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	}
	return c
}

// fakeServer serves nothing, until SIGUSR1 says that that has been unmounted.
func fakeServer(arg string) int {
	var f fake
	if err := json.Unmarshal([]byte(arg), &f); err != nil {
		return 3
	}
	unmounted := make(chan os.Signal, 1)
	signal.Notify(unmounted, syscall.SIGUSR1, syscall.SIGTERM)
	link, err := f.begin(arg)
	if err != nil {
		f.tell(event{What: "failed", Extra: err.Error()})
		return 4
	}
	if link == nil {
		return f.Exit
	}
	defer link.Done()
	for sig := range unmounted {
		f.tell(event{What: "unmounted", Extra: sig.String()})
		return 0
	}
	return 0
}

// begin begins to serve. link is nil if the server ends at once.
func (f *fake) begin(arg string) (*Link, error) {
	c := f.config(arg)
	if os.Getenv(Variable) == "" {
		c.Device, c.State = os.NewFile(3, "device"), os.NewFile(4, "state")
		unix.CloseOnExec(3)
		unix.CloseOnExec(4)
		if f.Ours {
			os.Setenv(stateVariable, "device=0 state=1 process=2 socket=2 pid=1")
			os.Setenv(Variable, "standby=1 died=11 held=99")
		}
		var files []*os.File
		for i := range f.Held {
			files = append(files, contentOf(fmt.Sprint(i)))
		}
		c.Held = files[:f.Held/2]
		link, err := Start(c)
		if err != nil {
			return nil, err
		}
		if err := link.Hold(files[f.Held/2:]...); err != nil {
			return nil, err
		}
		f.tell(event{What: "first", Holder: link.State().Holder})
		return link, nil
	}
	odd := f.Flag == "" || isThere(f.Flag)
	link, s, err := Inherit(c)
	if err != nil {
		return nil, err
	}
	e := event{What: "starts", Died: s.Died, Holder: link.State().Holder, Extra: os.Getenv("EXTRA")}
	held, err := link.Held()
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		text := make([]byte, 100)
		n, _ := h.ReadAt(text, 0)
		e.Held = append(e.Held, string(text[:n]))
		h.Close()
	}
	f.tell(e)
	if s.Standby {
		if f.Refuse != "" {
			link.Refuse(errors.New(f.Refuse))
			return nil, nil
		}
		if odd && f.Hang {
			select {}
		}
		if err := link.Ready(); err != nil {
			return nil, err
		}
		if s.Died, err = link.AwaitGo(context.Background()); err != nil {
			return nil, err
		}
		f.tell(event{What: "go", Died: s.Died})
		if f.Fail {
			return nil, nil
		}
	}
	switch {
	case odd && f.Hang:
		select {}
	case odd && f.Exit != 0 && f.ExitSoon:
		link.Serving()
		return nil, nil
	case odd && f.Exit != 0:
		return nil, nil
	}
	link.Serving()
	f.tell(event{What: "serves", Died: s.Died, Holder: link.State().Holder})
	return link, nil
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// contentOf returns a file with a content, which has no name.
func contentOf(text string) *os.File {
	fd, err := unix.MemfdCreate("held", unix.MFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	f := os.NewFile(uintptr(fd), "held")
	f.WriteString(text)
	return f
}

// A scene is a test's mount.
type scene struct {
	*testing.T
	fake
	events *net.UnixConn
	device *os.File // closed: the mount is gone
	first  *exec.Cmd
	Holder int
	Server int
}

// newScene starts the first server.
func newScene(t *testing.T, f fake) *scene {
	t.Helper()
	return newSceneOf(t, f, "/proc/self/exe")
}

func newSceneOf(t *testing.T, f fake, program string) *scene {
	t.Helper()
	dir := t.TempDir()
	if f.Events == "" {
		f.Events = filepath.Join(dir, "events")
	}
	if f.Sockets == "" {
		f.Sockets = filepath.Join(dir, "run")
	}
	if f.Patience == 0 {
		f.Patience = 20 * time.Second
	}
	s := &scene{T: t, fake: f}
	var err error
	if s.events, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: f.Events, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.device = read
	state := contentOf("state")
	s.first = exec.Command(program, "fake", f.text())
	if f.User != 0 {
		s.first.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(f.User)}}
		err := errors.Join(os.Chmod(f.Events, 0o777), os.Chmod(dir, 0o711), os.Chmod(filepath.Dir(dir), 0o711), os.Mkdir(f.Sockets, 0o700), os.Chown(f.Sockets, f.User, -1))
		if err != nil {
			t.Fatal(err)
		}
	}
	if f.Ignore {
		signal.Ignore(syscall.SIGHUP)
		defer signal.Reset(syscall.SIGHUP)
	}
	s.first.ExtraFiles = []*os.File{write, state}
	s.first.Env = append(os.Environ(), "EXTRA=of the first")
	if err := s.first.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	state.Close()
	t.Cleanup(func() {
		read.Close()
		s.end()
		s.events.Close()
	})
	go s.first.Wait()
	e := s.await("first")
	s.Holder, s.Server = e.Holder, e.PID
	return s
}

// text is a fake server's argument.
func (f *fake) text() string {
	text, _ := json.Marshal(f)
	return string(text)
}

// await waits for an event.
func (s *scene) await(what string) event {
	s.Helper()
	text := make([]byte, 1<<16)
	s.events.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		n, err := s.events.Read(text)
		if err != nil {
			s.Fatalf("waiting for %q: %v", what, err)
		}
		var e event
		if err := json.Unmarshal(text[:n], &e); err != nil {
			s.Fatal(err)
		}
		if e.What == what {
			return e
		}
		if e.What == "failed" {
			s.Fatalf("waiting for %q: a server has failed: %s", what, e.Extra)
		}
	}
}

// kill kills a process of the scene.
func (s *scene) kill(pid int) {
	s.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.Fatal(err)
	}
}

// client returns a client of the holder.
func (s *scene) client() *Client {
	return &Client{pid: s.Holder, owner: cmp.Or(s.User, os.Geteuid()), patience: DefaultPatience, path: filepath.Join(s.Sockets, "0-99.holder")}
}

func (s *scene) status() Status {
	s.Helper()
	status, err := s.client().Status(context.Background())
	if err != nil {
		s.Fatal(err)
	}
	return status
}

// ours are the processes of this scene: no other has its place of events in its arguments.
func (s *scene) ours() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		text, _ := os.ReadFile(name)
		if strings.Contains(string(text), s.Events) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// end ends all that the scene has started.
func (s *scene) end() {
	for range 100 {
		pids := s.ours()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Errorf("processes are left: %v", s.ours())
}

// awaitNone waits until all processes of the scene have ended.
func (s *scene) awaitNone() {
	s.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pids := s.ours()
		if len(pids) == 0 {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("processes have not ended: %v", pids)
		}
	}
}

// awaitHolder waits until there is another holder.
func (s *scene) awaitHolder() {
	s.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		for _, pid := range s.ours() {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			args := strings.Split(string(text), "\x00")
			if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); pid != s.Holder && Is(args) && string(comm) == ProcessName+"\n" {
				s.Holder = pid
				return
			}
		}
		if time.Now().After(end) {
			s.Fatal("there is no other holder")
		}
	}
}
