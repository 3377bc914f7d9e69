package dockerdaemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/remote"
)

// maxTail is how much of the end of a stream is kept, for what a daemon says there.
const maxTail = 4 << 10

// A stream is the tar that a daemon sends. A daemon that fails while it does so puts a
// document of JSON behind what it has sent: its answer began with success.
type stream struct {
	body io.ReadCloser
	read int64
	tail []byte // what was read last
	err  error  // of reading, but for its end
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.read += int64(n)
	s.keep(p[:n])
	if err != nil && err != io.EOF {
		s.err = fmt.Errorf("%w: the daemon's stream ends early, at byte %d", remote.ErrUnavailable, s.read)
		err = s.err
	}
	return n, err
}

// keep keeps the end of what was read.
func (s *stream) keep(p []byte) {
	if len(p) >= maxTail {
		s.tail = append(s.tail[:0], p[len(p)-maxTail:]...)
		return
	}
	s.tail = append(s.tail, p...)
	s.tail = s.tail[max(0, len(s.tail)-maxTail):]
}

// Close implements io.Closer.
func (s *stream) Close() error { return s.body.Close() }

// blame returns the error of a stream that is no whole archive: the daemon's own words,
// if it has sent some in place of the rest.
func (s *stream) blame(err error) error {
	if errors.Is(err, remote.ErrTooBig) {
		return err
	}
	for _, begin := range []string{`{"errorDetail"`, `{"message"`, `{"error"`, `{"cause"`} {
		at := bytes.LastIndex(s.tail, []byte(begin))
		if at < 0 {
			continue
		}
		if said := complaint(s.tail[at:]); said != "" && json.Valid(s.tail[at:]) { // nothing follows
			return fmt.Errorf("%w: the daemon says: %s", remote.ErrUnavailable, said)
		}
	}
	if s.err != nil {
		return s.err
	}
	return err
}
