package holder

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// The pauses before a successor is started that follows on others which did not serve.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// A server is a process that serves, or is to serve.
type server struct {
	pid, fd int       // the process, and a pidfd of it
	sock    int       // to its Link; -1 if that has closed it
	serving time.Time // since when it serves; zero: not yet
	begun   time.Time // when it was started
	ready   bool
	reason  string // why it cannot serve
}

// A watched is a descriptor that poll(2) waits for, and what is done when it can be read.
type watched struct {
	fd int
	do func()
}

// step waits until there is something to do, and does it.
func (h *keeper) step() {
	all := []watched{{h.signals, h.onSignal}}
	if h.door.fd >= 0 && len(h.clients) < maxClients && h.door.shut.IsZero() {
		all = append(all, watched{h.door.fd, h.accept})
	}
	for _, s := range []*server{h.server, h.standby} {
		if s == nil {
			continue
		}
		if s.sock >= 0 {
			all = append(all, watched{s.sock, func() { h.hear(s) }})
		}
		all = append(all, watched{s.fd, func() { h.ended(s) }})
	}
	for _, c := range h.clients {
		all = append(all, watched{c.fd, func() { h.hearClient(c) }})
	}
	fds := make([]unix.PollFd, len(all))
	for i, w := range all {
		fds[i] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN}
	}
	if _, err := unix.Poll(fds, h.timeout()); err == nil {
		for i, w := range all {
			if fds[i].Revents != 0 && h.code < 0 {
				w.do()
			}
		}
	}
	if h.code < 0 {
		h.onTime(time.Now())
	}
	if h.idle() {
		h.forgetFiles()
	}
}

// idle reports whether nothing is expected to happen soon.
func (h *keeper) idle() bool {
	return h.code < 0 && h.noneSince.IsZero() && h.standby == nil && len(h.clients) == 0
}

// deadlines are when something is to be done though nothing happens.
func (h *keeper) deadlines() (all []time.Time) {
	if h.server == nil && h.standby == nil {
		all = append(all, h.startAt)
	}
	switch {
	case h.standby != nil:
		all = append(all, h.standby.until(h))
	case !h.noneSince.IsZero():
		all = append(all, h.noneSince.Add(h.patience))
	}
	if !h.door.shut.IsZero() {
		all = append(all, h.door.shut)
	}
	for _, c := range h.clients {
		if !c.waits {
			all = append(all, c.until)
		}
	}
	return all
}

// timeout is how many milliseconds poll may wait; -1 is forever.
func (h *keeper) timeout() int {
	all := h.deadlines()
	if len(all) == 0 {
		return -1
	}
	left := time.Until(slices.MinFunc(all, time.Time.Compare))
	return int(min(max(0, (left+time.Millisecond-1)/time.Millisecond), math.MaxInt32))
}

// onTime does what is due.
func (h *keeper) onTime(now time.Time) {
	if now.After(h.door.shut) {
		h.door.shut = time.Time{}
	}
	for _, c := range slices.Clone(h.clients) {
		if !c.waits && now.After(c.until) {
			h.drop(c)
		}
	}
	switch {
	case h.standby != nil:
		if now.After(h.standby.until(h)) {
			h.standby.reason = fmt.Sprintf("it was not ready within %s", h.patience)
			h.kill(h.standby)
		}
	case !h.noneSince.IsZero() && now.After(h.noneSince.Add(h.patience)):
		h.giveUp(fmt.Sprintf("no server has come up within %s", h.patience))
	case h.server == nil && !now.Before(h.startAt):
		h.start()
	}
}

// hear takes what a server says.
func (h *keeper) hear(s *server) {
	for s.sock >= 0 && h.code < 0 {
		word, rest, files, err := receive(s.sock)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			return
		case err != nil:
			unix.Close(s.sock)
			s.sock = -1
			return
		}
		if word == "hold" {
			h.hold(s, rest, files)
			continue
		}
		closeAll(files)
		switch word {
		case "serving":
			h.serving(s)
		case "ready":
			if s == h.standby {
				s.ready = true
				h.change()
			}
		case "refuse":
			s.reason = printable.Line(rest)
		case "done":
			if s == h.server {
				h.code = 0
			}
		}
	}
}

// hold takes files that successors are to have.
func (h *keeper) hold(s *server, rest string, files []int) {
	if s != h.server || fmt.Sprint(len(files)) != rest {
		closeAll(files)
		_ = send(s.sock, "unheld") // or the server is gone
		return
	}
	h.held = append(h.held, files...)
	_ = send(s.sock, "held")
}

// serving notes that a server serves.
func (h *keeper) serving(s *server) {
	if s != h.server || !s.serving.IsZero() {
		return
	}
	s.serving, h.noneSince, h.reason = time.Now(), time.Time{}, ""
	upgraded := s.ready
	if upgraded {
		h.upgrades++
	} else {
		h.restarts, h.last = h.restarts+1, s.serving
	}
	h.passTermination()
	if upgraded && h.candidate >= 0 {
		h.answerUpgrade(fmt.Sprintf("done %d", s.pid))
		program := h.candidate
		h.candidate = -1
		h.renew(program)
	}
}

// ended is called when a process has ended.
func (h *keeper) ended(s *server) {
	h.hear(s)
	if h.code >= 0 {
		return
	}
	died, text := reap(s)
	switch s {
	case h.standby:
		h.standby = nil
		if s.reason == "" {
			s.reason = "it " + text + " before it was ready"
		}
		h.answerUpgrade("refused " + s.reason)
		h.forgetProgram()
	case h.server:
		h.server = nil
		if s.reason == "" {
			s.reason = "it " + text
		}
		h.died = died
		h.mourn(s, died)
	}
}

// mourn decides what follows on a death.
func (h *keeper) mourn(s *server, died int) {
	now := time.Now()
	switch {
	case isGone(h.device):
		h.code = 0
		return
	case h.swap && h.standby != nil:
		h.noneSince = now
		if died < 0 || died == int(unix.SIGKILL) {
			h.died = Replaced
		}
		h.change()
		return
	case s.ready && s.serving.IsZero(): // took over in an upgrade, and failed
		h.answerUpgrade("failed " + s.reason)
		h.forgetProgram()
	}
	h.swap = false
	if h.noneSince.IsZero() {
		h.noneSince = now
	}
	// Anybody may have killed one that was killed: it does not count.
	if !s.serving.IsZero() && (died == int(unix.SIGKILL) || died < 0 || now.Sub(s.serving) >= h.times.soon) {
		h.failures, h.startAt = 0, now
		return
	}
	h.reason = s.reason
	if died == int(unix.SIGKILL) || died < 0 {
		h.pause(now)
		return
	}
	h.failed = slices.DeleteFunc(append(h.failed, now), func(t time.Time) bool { return now.Sub(t) > h.times.window })
	if len(h.failed) >= h.times.deaths {
		h.giveUp(fmt.Sprintf("%d servers have ended within %s", len(h.failed), h.times.window))
		return
	}
	if h.failures == 0 && !s.serving.IsZero() {
		h.failures, h.startAt = 1, now
		return
	}
	h.pause(now)
}

// pause puts off the next successor, the longer the more in a row have failed.
func (h *keeper) pause(now time.Time) {
	h.startAt = now.Add(min(firstPause<<min(h.failures, 10), maxPause))
	h.failures++
}

// giveUp ends this holder: the mount is dead, and stays: an empty directory is not an
// image.
func (h *keeper) giveUp(why string) {
	if h.reason != "" {
		why += "; the last one: " + h.reason
	}
	if h.server != nil {
		h.kill(h.server)
	}
	now := time.Now().Format(time.RFC3339)
	if h.log >= 0 {
		_, _ = unix.Write(h.log, []byte(fmt.Sprintf("%s imgfs: %s: the mount is dead: %s\n", now, printable.Name(h.dir), printable.Line(why))))
	}
	h.answerUpgrade("failed " + why)
	h.writeGone(fmt.Sprintf("%s %q %q\n", now, h.dir, why))
	h.code = 1
}

// isGone reports whether the mount of a FUSE device is gone. The device is asked once:
// who waits for it is woken by each request.
func isGone(device int) bool {
	fds := []unix.PollFd{{Fd: int32(device)}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLERR != 0
}

// start starts a successor.
func (h *keeper) start() {
	s, err := h.launch(false)
	switch {
	case err == nil:
		h.server = s
	case isShortage(err):
		h.reason = "it could not be started: " + err.Error()
		h.pause(time.Now())
	default:
		h.mourn(&server{reason: "it could not be started: " + err.Error()}, 0)
	}
}

// isShortage reports whether an error says that the machine, or the user, has something no
// more that it may have again soon.
func isShortage(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ENOBUFS}, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// launch starts a process that is to serve.
func (h *keeper) launch(standby bool) (*server, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer unix.Close(theirs)
	program := "/proc/self/exe"
	files := []uintptr{0, 1, 2, deviceFD: uintptr(h.device), stateFD: uintptr(h.state), socketFD: uintptr(theirs)}
	for _, fd := range h.held {
		files = append(files, uintptr(fd))
	}
	if h.program >= 0 { // above all numbers that the new process uses before it executes the program
		fd, err := unix.FcntlInt(uintptr(h.program), unix.F_DUPFD_CLOEXEC, int(slices.Max(files))+2*len(files))
		if err != nil {
			unix.Close(ours)
			return nil, err
		}
		defer unix.Close(fd)
		program = procFD(fd)
	}
	env := append(slices.Clone(h.env), succeedEnv(standby, h.died, len(h.held)))
	s := &server{fd: -1, sock: ours, begun: time.Now()}
	again := h.asInherited()
	s.pid, err = syscall.ForkExec(program, append([]string{os.Args[0]}, h.args...), &syscall.ProcAttr{
		Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &s.fd}})
	again()
	if err == nil && s.fd < 0 {
		s.fd, err = unix.PidfdOpen(s.pid, 0) // it is not reaped yet
		if err != nil {
			_ = unix.Kill(s.pid, unix.SIGKILL)
			_, _ = unix.Wait4(s.pid, nil, 0, nil)
		}
	}
	if err != nil {
		unix.Close(ours)
		return nil, err
	}
	return s, nil
}

// succeedEnv tells a successor what it is.
func succeedEnv(standby bool, died, held int) string {
	n := 0
	if standby {
		n = 1
	}
	return fmt.Sprintf("%s=standby=%d died=%d held=%d", Variable, n, died, held)
}

func (h *keeper) kill(s *server) { _ = unix.PidfdSendSignal(s.fd, unix.SIGKILL, nil, 0) } // else it has ended

// reap takes note of how a process ended, and closes what belongs to it. died is as in
// Succeed.
func reap(s *server) (died int, text string) {
	var status unix.WaitStatus
	pid, err := unix.Wait4(s.pid, &status, unix.WNOHANG, nil)
	if err != nil || pid != s.pid { // not a child of ours
		var info unix.PidfdInfo
		info.Mask = unix.PIDFD_INFO_EXIT // Linux 6.15
		if unix.IoctlPidfdInfo(s.fd, &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			status, pid = unix.WaitStatus(info.Exit_code), s.pid
		}
	}
	unix.Close(s.fd)
	if s.sock >= 0 {
		unix.Close(s.sock)
		s.sock = -1
	}
	switch {
	case pid != s.pid:
		return -1, "ended"
	case status.Signaled():
		return int(status.Signal()), fmt.Sprintf("was ended by signal %d (%s)", status.Signal(), status.Signal())
	}
	return 0, fmt.Sprintf("ended with exit code %d", status.ExitStatus())
}
