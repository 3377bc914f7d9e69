package container

import (
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// A stdio is what a container has as standard input, output and error: pipes, as with
// podman. Runtimes give what a container has there to its user, and whoever has a file can
// truncate it by /dev/stdout, and whoever has a terminal can change its modes.
type stdio struct {
	in, out, err *os.File   // the container's
	close        []*os.File // when the supervisor has them
	copies       sync.WaitGroup
	runs         chan struct{} // closed when the container runs: only then something is copied
	failed       chan struct{} // closed when there is none
	said         lockedText    // in that case: what the runtime has said, or some of it
}

// newStdio makes them. A container with a terminal of its own writes there; what its
// runtime says the supervisor reads.
func (c *Container) newStdio() (*stdio, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &stdio{in: null, out: null, err: null, close: []*os.File{null}, runs: make(chan struct{}), failed: make(chan struct{})}
	if c.terminal() {
		return s, nil
	}
	if c.Stdin != nil {
		if s.in, err = s.input(c.Stdin); err != nil {
			return s, err
		}
	}
	if s.out, err = s.output(c.Stdout); err != nil {
		return s, err
	}
	if isSame(c.Stdout, c.Stderr) { // one pipe, so that the order stays
		s.err = s.out
		return s, nil
	}
	s.err, err = s.output(c.Stderr)
	return s, err
}

// isSame reports whether two files are the same.
func isSame(a, b *os.File) bool {
	one, err1 := a.Stat()
	two, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// input returns what the container reads for what the command does.
func (s *stdio) input(from *os.File) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, r)
	go func() { // it ends with the process at the latest
		defer w.Close()
		_, _ = io.Copy(w, from)
	}()
	return r, nil
}

// output returns where the container writes for where the command does.
func (s *stdio) output(to *os.File) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, w)
	s.copies.Go(func() {
		defer r.Close() // if nobody wants it, the container learns that
		s.copy(to, r)
	})
	return w, nil
}

// copy copies what the container writes. If there is none, it is what the runtime has
// said.
func (s *stdio) copy(to io.Writer, from io.Reader) {
	select {
	case <-s.runs:
		_, _ = io.Copy(to, from)
	case <-s.failed:
		text, _ := io.ReadAll(io.LimitReader(from, maxSaid)) // without all of it the error has less to say
		s.said.add(text)
	}
}

// maxSaid is how much of what a runtime says is read.
const maxSaid = 4 << 10

// A lockedText is text that several goroutines add to.
type lockedText struct {
	mu   sync.Mutex
	text []byte
}

func (l *lockedText) add(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, text...)
}

// giveUp says that there is no container, unless it has run. Twice does no harm.
func (s *stdio) giveUp() {
	select {
	case <-s.runs:
	case <-s.failed:
	default:
		close(s.failed)
	}
}

// why returns what a runtime has said that has ended without a container.
func (s *stdio) why() string {
	s.copies.Wait()
	return string(s.said.text)
}

// started gives up what the supervisor has by now.
func (s *stdio) started() {
	for _, f := range s.close {
		f.Close()
	}
}

// finish waits until all that was written has been copied, or a signal ends that, as when
// whoever reads it does not go on.
func (s *stdio) finish() {
	select {
	case <-s.runs:
	default: // nothing is copied
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.copies.Wait()
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(signals)
	select {
	case <-done:
	case <-signals:
	}
}
